create table addresses (
    id integer primary key, name text not null, street text not null, house text not null, postcode text not null,
    city text not null, country text not null, billing integer not null
);
create table subscriptions (id integer primary key, name text not null);
