create table bookings (id integer primary key, room text not null, first text not null, last text not null);
create table holds (id integer primary key, day text not null);
