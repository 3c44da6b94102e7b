"""Statements as models write them for people's questions, over a schema of ten tables of which a token restricts columns.

What is in « » is hidden. `BOTH` runs on SQLite and on PostgreSQL; the others are in the words of one of them.
"""

from __future__ import annotations

SCHEMA = """
create table customers (id integer primary key, «ssn text default 'hidden',» name text, email text, city text, «credit integer default 100,» since date);
create table products («cost integer default 3,» id integer primary key, sku text, name text, category text, price integer);
create table orders (id integer primary key, customer_id integer, placed date, status text, total integer «, margin integer default 9, city text default 'hidden'»);
create table order_items (order_id integer, product_id integer, qty integer, price integer «, cost integer default 2», primary key (order_id, product_id));
create table employees (id integer primary key, name text, «salary integer default 900,» team_id integer, manager_id integer, hired date);
create table teams (id integer primary key, name text «, budget integer default 7»);
create table tickets (id integer primary key, customer_id integer, assignee_id integer, opened date, closed date, priority text, tags {json} «, note text default 'hidden'»);
create table payments (id integer primary key, order_id integer, paid_on date, amount integer, method text «, card text default 'hidden'»);
create table visits (id integer primary key, «ip text default 'hidden',» customer_id integer, at date, page text);
create table stock (product_id integer, warehouse text, qty integer «, supplier text default 'hidden'», primary key (product_id, warehouse));
create table notes (id integer primary key, about text, body text);
insert into customers (id, name, email, city, since) values (1, 'Ann', 'ann@example.org', 'Oslo', '2024-03-01'), (2, 'Bob', 'bob@example.org', 'Bern', '2024-05-09'),
    (3, 'Cyd', null, 'Oslo', '2025-01-02'), (4, 'Dot', 'dot@example.org', null, '2025-11-30'), (5, 'Eve', 'eve@example.org', 'Rome', '2026-01-15');
insert into products (id, sku, name, category, price) values (1, 'A1', 'apple', 'fruit', 2), (2, 'B1', 'bread', 'bakery', 4), (3, 'C1', 'cheese', 'dairy', 9), (4, 'P1', 'pear', 'fruit', 3);
insert into orders (id, customer_id, placed, status, total) values (1, 1, '2026-01-05', 'paid', 20), (2, 1, '2026-02-07', 'open', 9), (3, 2, '2026-02-09', 'paid', 31),
    (4, 3, '2025-12-31', 'void', 4), (5, 5, '2026-02-20', 'paid', 12), (6, null, '2026-03-01', 'open', 2);
insert into order_items (order_id, product_id, qty, price) values (1, 1, 6, 2), (1, 2, 2, 4), (2, 3, 1, 9), (3, 3, 3, 9), (3, 2, 1, 4), (4, 2, 1, 4), (5, 4, 4, 3), (6, 1, 1, 2);
insert into employees (id, name, team_id, manager_id, hired) values (1, 'Fay', 1, null, '2020-01-01'), (2, 'Gus', 1, 1, '2021-06-01'), (3, 'Hal', 2, 1, '2022-02-02'), (4, 'Ivy', 2, 3, '2025-09-09');
insert into teams (id, name) values (1, 'sales'), (2, 'support'), (3, 'legal');
insert into tickets (id, customer_id, assignee_id, opened, closed, priority, tags) values (1, 1, 3, '2026-01-10', '2026-01-12', 'high', '["billing", "urgent"]'),
    (2, 2, 4, '2026-01-20', null, 'low', '[]'), (3, 1, 4, '2026-02-01', null, 'high', '["login"]'), (4, 5, null, '2026-02-22', null, 'low', '["billing"]');
insert into payments (id, order_id, paid_on, amount, method) values (1, 1, '2026-01-06', 20, 'card'), (2, 3, '2026-02-10', 15, 'card'), (3, 3, '2026-02-15', 16, 'bank'), (4, 5, '2026-02-21', 12, 'cash');
insert into visits (id, customer_id, at, page) values (1, 1, '2026-01-04', 'home'), (2, 1, '2026-01-05', 'cart'), (3, 2, '2026-02-08', 'home'), (4, 5, '2026-02-19', 'home'), (5, 5, '2026-02-20', 'cart');
insert into stock (product_id, warehouse, qty) values (1, 'north', 10), (1, 'south', 0), (2, 'north', 3), (3, 'south', 7);
insert into notes values (1, 'Ann', 'called'), (2, 'Bob', 'wrote');
create view revenue as select customer_id, sum(total) as total from orders where status = 'paid' group by customer_id;
"""
COLUMNS = {
    "customers": ["id", "name", "email", "city", "since"],
    "products": ["id", "sku", "name", "category", "price"],
    "orders": ["id", "customer_id", "placed", "status", "total"],
    "order_items": ["order_id", "product_id", "qty", "price"],
    "employees": ["id", "name", "team_id", "manager_id", "hired"],
    "teams": ["id", "name"],
    "tickets": ["id", "customer_id", "assignee_id", "opened", "closed", "priority", "tags"],
    "payments": ["id", "order_id", "paid_on", "amount", "method"],
    "visits": ["id", "customer_id", "at", "page"],
    "stock": ["product_id", "warehouse", "qty"],
}

BOTH = """
select * from customers order by id
select * from orders where status = 'paid' order by total desc
select count(*) from customers
select city, count(*) as n from customers where city is not null group by city order by n desc, city
select coalesce(city, 'unknown') as place, count(*) as people from customers group by place order by people desc, place
select c.name, o.total from customers c join orders o on o.customer_id = c.id order by o.total desc, c.name
select c.*, o.id as order_id from customers c left join orders o on o.customer_id = c.id order by c.id, o.id
select c.name, count(o.id) as orders, sum(o.total) as revenue from customers c left join orders o on c.id = o.customer_id group by c.id, c.name order by revenue desc nulls last, c.name
select name, (select count(*) from orders o where o.customer_id = c.id) as orders from customers c order by 2 desc, 1
select name from customers where id not in (select customer_id from orders where customer_id is not null) order by name
select name from customers c where not exists (select 1 from orders o where o.customer_id = c.id) order by name
select name from customers c where exists (select * from orders o where o.customer_id = c.id and o.status = 'paid') order by name
select p.name, sum(i.qty) as sold from products p join order_items i on i.product_id = p.id group by p.id, p.name order by sold desc, p.name limit 3
select p.category, sum(i.qty * i.price) as revenue from order_items i join products p on p.id = i.product_id group by 1 order by 2 desc
select o.id, sum(i.qty * i.price) as computed, o.total from orders o join order_items i on i.order_id = o.id group by o.id, o.total order by o.id
select o.id, o.total - coalesce(sum(p.amount), 0) as due from orders o left join payments p on p.order_id = o.id group by o.id, o.total order by due desc, o.id
with spend as (select customer_id, sum(total) as total from orders group by customer_id) select c.name, s.total from spend s join customers c on c.id = s.customer_id order by s.total desc
with paid as (select * from orders where status = 'paid'), big as (select * from paid where total > 15) select b.id, c.name from big b join customers c on c.id = b.customer_id order by b.id
with recursive chain as (select id, name, manager_id, 0 as depth from employees where manager_id is null union all select e.id, e.name, e.manager_id, depth + 1 from employees e join chain on e.manager_id = chain.id) select name, depth from chain order by depth, name
with recursive up(id, manager_id) as (select id, manager_id from employees where name = 'Ivy' union all select e.id, e.manager_id from employees e join up on e.id = up.manager_id) select e.name from up join employees e on e.id = up.id order by e.id
with recursive days(n) as (select 1 union all select n + 1 from days where n < 5) select n, (select count(*) from orders where id = n) as orders from days order by n
select e.name, m.name as manager from employees e left join employees m on m.id = e.manager_id order by e.name
select t.name as team, count(e.id) as members from teams t left join employees e on e.team_id = t.id group by t.name order by members desc, team
select e.name as employee, t.name as team from employees e join teams t on t.id = e.team_id where e.hired >= '2021-01-01' order by 1
select name, rank() over (order by price desc) as place from products order by place, name
select category, name, row_number() over (partition by category order by price desc) as nth from products order by category, nth
select * from (select p.*, rank() over (partition by category order by price desc) as r from products p) ranked where r = 1 order by name
select id, total, sum(total) over (order by id) as running from orders order by id
select id, total, lag(total) over (order by placed) as previous, total - lag(total) over (order by placed) as change from orders order by placed
select id, avg(total) over (order by id rows between 1 preceding and current row) as moving from orders order by id
select customer_id, first_value(id) over w as first_order, max(total) over w as biggest from orders window w as (partition by customer_id order by placed) order by customer_id, first_order, biggest
select ntile(2) over (order by total) as half, id from orders order by half, id
select case when total >= 20 then 'big' when total >= 10 then 'medium' else 'small' end as size, count(*) from orders group by size order by size
select status, sum(case when total > 10 then 1 else 0 end) as big, count(*) as all_of_them from orders group by status order by status
select count(*) filter (where status = 'paid') as paid, count(*) filter (where status = 'open') as open from orders
select customer_id, sum(total) filter (where status = 'paid') as paid from orders group by customer_id having count(*) > 1
select city, count(*) from customers group by city having count(*) > 1
select status, count(*), avg(total), min(total), max(total) from orders group by status order by count(*) desc, status
select count(distinct customer_id) from orders where placed between '2026-01-01' and '2026-02-28'
select distinct category from products order by category
select name from products where price > (select avg(price) from products) order by name
select name from products where category in ('fruit', 'dairy') and price < 5 order by price
select upper(name) as margin from customers order by margin
select total * 2 as cost from orders order by cost desc limit 2 offset 1
select name as credit, id as ssn from customers order by ssn
select lower(c.email) as email from customers c where c.email like '%@example.org' order by email
select substr(email, 1, 3) as handle from customers where email is not null order by handle
select replace(name, 'A', 'a') || ' (' || coalesce(city, '-') || ')' as label from customers order by id
select length(name) as n, count(*) from customers group by n order by n
select round(avg(total), 2) from orders
select max(placed), min(placed) from orders
select id, status from orders where placed > '2026-01-31' order by placed, id
select nullif(status, 'void') as status, count(*) as n from orders group by 1 order by n desc, 1
select name from customers union select name from employees order by name
select name, 'customer' as kind from customers union all select name, 'employee' from employees order by kind, name
select customer_id from orders intersect select customer_id from tickets order by 1
select id from customers except select customer_id from visits order by id
select * from teams cross join (select 1 as one) x order by id
select * from customers natural join (select 1 as id, 'Ann' as name) who
select order_id, count(*) from order_items join payments using (order_id) group by order_id order by order_id
select customer_id, count(distinct t.id) as tickets, count(distinct v.id) as visits from tickets t join visits v using (customer_id) group by customer_id order by customer_id
select p.name, coalesce(sum(s.qty), 0) as in_stock from products p left join stock s on s.product_id = p.id group by p.id, p.name order by in_stock, p.name
select p.name from products p left join stock s on s.product_id = p.id where s.product_id is null
select s.warehouse, count(*) as goods, sum(s.qty * p.price) as worth from stock s join products p on p.id = s.product_id where s.qty > 0 group by s.warehouse order by s.warehouse
select t.id, c.name, e.name as assignee from tickets t join customers c on c.id = t.customer_id left join employees e on e.id = t.assignee_id order by t.id
select priority, count(*) as open_tickets from tickets where closed is null group by priority order by priority
select e.name, count(t.id) filter (where t.closed is null) as open from employees e left join tickets t on t.assignee_id = e.id group by e.id, e.name order by open desc, e.name
select method, sum(amount) as total from payments group by method order by total desc
select o.id from orders o left join payments p on p.order_id = o.id where p.id is null and o.status <> 'void' order by o.id
select page, count(*) as hits from visits group by page order by hits desc, page
select r.total, c.name from revenue r join customers c on c.id = r.customer_id order by r.total desc
select * from revenue order by customer_id
select c.name from customers c where c.id = (select customer_id from orders order by total desc limit 1)
select x.name, x.n from (select c.name, count(*) as n from customers c join visits v on v.customer_id = c.id group by c.name) x where x.n > 1 order by x.name
select c.city, max(o.total) as most from customers c, orders o where c.id = o.customer_id group by c.city order by most desc
select "name", "price" as "Price in EUR" from "products" order by "Price in EUR", "name"
select a.name, b.name from customers a join customers b on a.city = b.city and a.id < b.id
select (select count(*) from customers) as customers, (select count(*) from orders) as orders
values (1, 'one'), (2, 'two')
select customers.name, orders.total from customers inner join orders on customers.id = orders.customer_id where customers.city = 'Oslo' order by orders.total
select i.order_id, sum(i.qty) as items from order_items i where i.order_id in (select id from orders where status = 'paid') group by i.order_id having sum(i.qty) > 4 order by items desc
insert into notes (id, about, body) select id + 10, name, 'from ' || coalesce(city, '?') from customers where id < 4 returning id, about, body
insert into notes (id, about, body) values (1, 'Ann', 'again') on conflict (id) do update set body = excluded.body || ' ' || notes.body returning *
update customers set city = 'Basel' where city = 'Bern' returning id, name, city
update customers set email = lower(name) || '@example.com' where email is null returning *
update orders set status = 'paid' where id in (select order_id from payments) and status <> 'paid'
update notes set body = c.city from customers c where c.name = notes.about returning notes.id, notes.body
update orders set total = s.total from (select order_id, sum(qty * price) as total from order_items group by order_id) as s where s.order_id = orders.id and orders.id = 2 returning orders.id, orders.total
update tickets set assignee_id = (select id from employees where name = 'Hal') where assignee_id is null returning id, assignee_id
update stock set qty = qty - 1 where product_id = 1 and warehouse = 'north' returning qty
delete from notes where about in (select name from customers where city = 'Oslo') returning id
""".strip().splitlines()

SQLITE = """
select strftime('%Y-%m', placed) as month, sum(total) as revenue from orders group by month order by month
select date(placed, '+30 days') as due from orders where status = 'open' order by due
select cast(julianday('2026-03-01') - julianday(opened) as integer) as age, id from tickets where closed is null order by age desc
select t.id, j.value as tag from tickets t, json_each(t.tags) j order by t.id, tag
select j.value as tag, count(*) as n from tickets, json_each(tags) as j group by tag order by n desc, tag
select id, json_extract(tags, '$[0]') as first_tag from tickets order by id
select id, tags ->> '$[0]' as first_tag, json_array_length(tags) as n from tickets order by n desc, id
select json_group_array(json_object('id', id, 'name', name)) from (select * from teams order by id)
select group_concat(name, ', ') from (select name from customers order by name)
select name from customers where name like 'a%' or city glob 'O*' order by 1
select iif(total > 10, 'big', 'small') as size, count(*) from orders group by size
select name, city from customers order by city collate nocase desc nulls last, name
select total / 2.0 as half, total % 3 as rest, typeof(total) from orders order by id
select printf('%s: %d', status, sum(total)) as line from orders group by status order by line
select max(total), placed from orders
select [name], `city` from [customers] where "id" = 1
select id from customers where city is not 'Oslo' order by id
insert or ignore into notes (id, about, body) select id, name, email from customers
replace into notes (id, about, body) select id, name, city from customers where id = 1
update or ignore customers set (name, city) = (select upper(e.name), 'Oslo' from employees e where e.id = customers.id) where id = 4 returning *
with rich as (select customer_id from orders group by customer_id having sum(total) > 25) update customers set city = 'VIP' where id in (select customer_id from rich) returning name
update customers set name = s.name || '!' from orders as s2 join products as s on s.id = s2.id where s2.customer_id = customers.id and s2.status = 'paid' returning id, name
select instr(email, '@') as at, substr(email, instr(email, '@') + 1) as domain from customers where email is not null order by id
select unixepoch(placed) / 86400 as day from orders order by day limit 2
select total(amount), count(*) from payments
select c.name, count(*) as n from customers c join orders o on o.customer_id = c.id group by 1 having n > 1 order by n desc
select s.warehouse, group_concat(p.name, ', ') as goods from (select * from stock order by product_id) s join products p on p.id = s.product_id where s.qty > 0 group by s.warehouse order by s.warehouse
select exists (select 1 from orders where total > 30) as any_big, 3 in (select id from customers) as third
select value from json_each((select tags from tickets where id = 1)) order by value
select name from customers where (city, id) in (values ('Oslo', 1), ('Bern', 2)) order by id
""".strip().splitlines()

POSTGRES = """
select date_trunc('month', placed)::date as month, sum(total) as revenue from orders group by month order by month
select to_char(placed, 'YYYY-MM') as month, count(*) from orders group by 1 order by 1
select extract(year from placed)::int as year, sum(total) from orders group by year order by year
select placed + interval '30 days' as due from orders where status = 'open' order by due
select id, date '2026-03-01' - opened as age from tickets where closed is null order by age desc
select c.name, l.total from customers c cross join lateral (select o.total from orders o where o.customer_id = c.id order by o.total desc limit 1) l order by c.name
select c.name, l.* from customers c left join lateral (select o.id, o.total from orders o where o.customer_id = c.id order by o.placed desc limit 1) l on true order by c.name
select distinct on (customer_id) customer_id, id, placed from orders order by customer_id, placed desc
select t.id, tag from tickets t, jsonb_array_elements_text(t.tags) as tag order by 1, 2
select tag, count(*) from tickets cross join lateral jsonb_array_elements_text(tags) as x(tag) group by tag order by 2 desc, 1
select id, tags ->> 0 as first_tag, jsonb_array_length(tags) as n from tickets order by id
select id from tickets where tags ? 'billing' order by id
select id from tickets where tags @> '["billing"]' order by id
select json_agg(json_build_object('id', t.id, 'name', t.name) order by t.id) from teams t
select json_agg(t order by t.id) from teams t
select row_to_json(p) from products p order by p.id
select to_jsonb(c) - 'email' as customer from customers c order by c.id
select array_agg(name order by name) from customers where city = any (array['Oslo', 'Rome'])
select city, array_agg(distinct name order by name) as names, array_length(array_agg(name), 1) as n from customers group by city order by city
select unnest(array[1, 2, 3]) as n, count(*) from customers group by 1 order by 1
select name from customers where name ilike 'a%' or email ~ '^b' order by name
select c.id, c.name, c.city, sum(o.total) as spent from customers c left join orders o on o.customer_id = c.id group by c.id order by spent desc nulls last, c.id
select c.*, count(v.id) as visits from customers c left join visits v on v.customer_id = c.id group by c.id order by c.id
select d::date as day, count(o.id) from generate_series('2026-02-05'::date, '2026-02-10', '1 day') as d left join orders o on o.placed = d::date group by d order by d
select percentile_cont(0.5) within group (order by total) from orders
select category, sum(price) from products group by rollup (category) order by 1 nulls last
select status, customer_id, count(*) from orders group by grouping sets ((status), (customer_id)) order by 1 nulls last, 2 nulls last
select total::numeric / 3 as third, (total::text || ' EUR') as label from orders order by id
select s.warehouse, string_agg(p.name, ', ' order by p.name) as goods from stock s join products p on p.id = s.product_id where s.qty > 0 group by s.warehouse order by s.warehouse
select string_agg(distinct c.city, ', ' order by c.city) from customers c
select name, since, age(date '2026-03-01', since) as member_for from customers order by since
select id, total from orders order by total desc fetch first 2 rows with ties
select * from customers c where (c.city, c.id) in (('Oslo', 1), ('Bern', 2)) order by c.id
insert into teams (id, name) values (9, 'legal ops') returning *
insert into teams values (3, 'law') on conflict (id) do update set name = excluded.name returning id, name
insert into stock (product_id, warehouse, qty) select id, 'east', 0 from products on conflict do nothing returning product_id
insert into stock as s values (1, 'north', 5) on conflict (product_id, warehouse) do update set qty = s.qty + excluded.qty returning s.*
update orders o set status = 'settled' from payments p where p.order_id = o.id and p.method = 'bank' returning o.*, p.amount
update products p set price = price + 1 from (select product_id, sum(qty) as sold from order_items group by product_id) s where s.product_id = p.id and s.sold > 3 returning p.name, p.price, s.sold
update customers set (email, city) = (select 'x@example.org', max(city) from customers) where id = 3 returning email, city
with moved as (update tickets set assignee_id = 2 where assignee_id is null returning *) select m.id, e.name from moved m join employees e on e.id = m.assignee_id
with fresh as (insert into teams (id, name) values (8, 'ops') returning id, name) insert into notes select id, name, 'new' from fresh returning *
merge into stock s using (values (1, 'north', 2), (4, 'west', 9)) as v(p, w, q) on s.product_id = v.p and s.warehouse = v.w when matched then update set qty = s.qty + v.q when not matched then insert (product_id, warehouse, qty) values (v.p, v.w, v.q)
select name from customers where id = 1 for update
""".strip().splitlines()
