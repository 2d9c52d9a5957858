create table things (name text primary key, reader text not null);
create table reminders (id integer primary key, thing text not null);
