create table messages (
    id integer primary key, recipient text not null, subject text not null, body text not null, answers integer,
    everyone integer not null
);
create table drafts (id integer primary key, recipient text not null);
create table inbox (id integer primary key, sender text not null, subject text not null, seen integer not null);
create table contacts (address text primary key, name text not null, team text not null);
