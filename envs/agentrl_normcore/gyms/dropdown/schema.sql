create table choices (id integer primary key, building text not null, floor text not null, room text not null);
create table attempts (id integer primary key, room text not null);
