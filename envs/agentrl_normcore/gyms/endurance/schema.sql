create table kept (id integer primary key, item text not null);
create table tickets (id integer primary key, title text not null unique, status text not null, locked integer not null);
create table copies (id integer primary key, ticket text not null);
