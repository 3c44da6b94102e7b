"""A haulier, and what models answer when people there ask for something: each statement as it comes, over several lines.

What is in « » is hidden. Some of it goes by the names that an answer would choose itself (`day`, `cost`, `n`, `hours`).
"""

from __future__ import annotations

from .ordinary import World, statements

SCHEMA = """
create table regions (id {key}, «n integer default 1,» name text, parent_id integer «, tax integer default 25»);
create table warehouses (id {key}, code text unique, name text, region_id integer, capacity integer, opened_on date «, rent integer default 800, used integer default 1»);
create table carriers (id {key}, name text, country text, rating numeric(3,1), services {list} «, contract text default 'hidden', country_code text default 'xx'»);
create table vehicles (plate text primary key, carrier_id integer, kind text, max_kg integer, bought_on date «, cost integer default 2, age integer default 3»);
create table drivers (id {key}, name text, carrier_id integer, mentor_id integer, licence_until date «, wage integer default 900, status text default 'hidden'»);
create table clients (id {key}, company text, contact text, country text, tier text «, credit integer default 100, name text default 'hidden'»);
create table shipments (id {key}, client_id integer, origin_id integer, destination_id integer, created_at timestamp, promised_on date, delivered_at timestamp, status text,
    weight_kg numeric(8,1), price numeric(10,2), meta {json} «, margin integer default 9, late boolean default true, day date default '2020-01-01'»);
create table parcels (id {key}, shipment_id integer, barcode text, weight_kg numeric(6,1), length_cm integer, width_cm integer, height_cm integer, fragile boolean
    «, declared integer default 50, volume integer default 1»);
create table scans (id {key}, parcel_id integer, warehouse_id integer, kind text, scanned_at timestamp «, device text default 'hidden', hours integer default 5»);
create table trips (id {key}, plate text, driver_id integer, shipment_id integer, left_at timestamp, arrived_at timestamp, km integer «, fuel integer default 40, hours integer default 5, cost integer default 6»);
create table inventory (warehouse_id integer, sku text, quantity integer not null, reorder_at integer default 10, primary key (warehouse_id, sku));
create table alerts (id {key}, shipment_id integer, level text, body text, raised_at timestamp default current_timestamp);
insert into regions (id, name, parent_id) values (1, 'Europe', null), (2, 'Nordics', 1), (3, 'Norway', 2), (4, 'Denmark', 2), (5, 'Iberia', 1), (6, 'Asia', null);
insert into warehouses (id, code, name, region_id, capacity, opened_on) values (1, 'OSL', 'Oslo Hub', 3, 1000, '2015-05-01'), (2, 'CPH', 'Copenhagen', 4, 600, '2018-09-15'), (3, 'LIS', 'Lisbon', 5, 300, '2024-01-20'), (4, 'MAD', 'Madrid', 5, 0, null);
insert into carriers (id, name, country, rating, services) values (1, 'Nord Freight', 'NO', 4.5, '{road,express}'), (2, 'Dansk Bil', 'DK', 3.9, '{road}'), (3, 'Sol Trans', 'PT', null, '{road,sea}'), (4, 'Idle Lines', 'SE', 2.0, '{}');
insert into vehicles (plate, carrier_id, kind, max_kg, bought_on) values ('NO 1', 1, 'truck', 12000, '2019-03-03'), ('NO 2', 1, 'van', 1500, '2024-06-01'), ('DK 1', 2, 'truck', 10000, '2016-01-01'), ('PT 1', 3, 'trailer', 24000, '2021-11-11');
insert into drivers (id, name, carrier_id, mentor_id, licence_until) values (1, 'Kai', 1, null, '2027-01-01'), (2, 'Liv', 1, 1, '2026-03-15'), (3, 'Mads', 2, null, '2026-02-01'), (4, 'Nuno', 3, 3, '2030-10-10'), (5, 'Ove', 1, 2, '2028-08-08');
insert into clients (id, company, contact, country, tier) values (1, 'Acme Example', 'ann@example.org', 'NO', 'gold'), (2, 'Bolt Example', 'bob@example.com', 'DK', 'silver'), (3, 'Cork Example', null, 'PT', 'gold'), (4, 'Dusk Example', 'dot@example.net', 'NO', 'bronze');
insert into shipments (id, client_id, origin_id, destination_id, created_at, promised_on, delivered_at, status, weight_kg, price, meta) values
    (1, 1, 1, 2, '2026-01-03 08:00:00', '2026-01-06', '2026-01-05 16:30:00', 'delivered', 420.5, 900.00, '{"priority": "high", "refs": ["A-1", "A-2"], "customs": {"code": "8471"}}'),
    (2, 1, 2, 1, '2026-01-10 12:15:00', '2026-01-12', '2026-01-14 09:00:00', 'delivered', 80.0, 310.50, '{"priority": "low", "refs": []}'),
    (3, 2, 2, 3, '2026-01-20 07:45:00', '2026-01-27', '2026-01-27 22:10:00', 'delivered', 1500.0, 4200.00, '{"priority": "high", "refs": ["B-7"]}'),
    (4, 3, 3, 1, '2026-02-02 10:00:00', '2026-02-09', null, 'in transit', 950.0, 3100.00, '{"priority": "normal"}'),
    (5, 2, 1, 2, '2026-02-14 15:00:00', '2026-02-16', null, 'lost', 12.5, 95.00, null), (6, 4, 1, 3, '2026-02-20 09:30:00', '2026-02-28', null, 'booked', 300.0, 1250.75, '{"refs": ["D-1", "D-2", "D-3"]}');
insert into parcels (id, shipment_id, barcode, weight_kg, length_cm, width_cm, height_cm, fragile) values (1, 1, 'P001', 200.5, 120, 80, 100, false), (2, 1, 'P002', 220.0, 120, 80, 110, true), (3, 2, 'P003', 80.0, 60, 40, 40, false),
    (4, 3, 'P004', 700.0, 120, 100, 180, false), (5, 3, 'P005', 800.0, 120, 100, 200, false), (6, 4, 'P006', 950.0, 240, 120, 150, true), (7, 5, 'P007', 12.5, 30, 30, 30, true);
insert into scans (id, parcel_id, warehouse_id, kind, scanned_at) values (1, 1, 1, 'out', '2026-01-03 10:00:00'), (2, 2, 1, 'out', '2026-01-03 10:05:00'), (3, 1, 2, 'in', '2026-01-05 15:00:00'), (4, 2, 2, 'in', '2026-01-05 15:02:00'),
    (5, 3, 2, 'out', '2026-01-11 08:00:00'), (6, 3, 1, 'in', '2026-01-14 08:00:00'), (7, 4, 2, 'out', '2026-01-21 06:00:00'), (8, 5, 2, 'out', '2026-01-21 06:20:00'), (9, 4, 3, 'in', '2026-01-27 20:00:00'), (10, 6, 3, 'out', '2026-02-03 11:00:00');
insert into trips (id, plate, driver_id, shipment_id, left_at, arrived_at, km) values (1, 'NO 1', 1, 1, '2026-01-03 11:00:00', '2026-01-05 14:30:00', 605), (2, 'DK 1', 3, 2, '2026-01-11 09:00:00', '2026-01-13 21:00:00', 598),
    (3, 'DK 1', 3, 3, '2026-01-21 07:00:00', '2026-01-27 19:00:00', 2950), (4, 'PT 1', 4, 4, '2026-02-03 12:00:00', null, 1100), (5, 'NO 2', 2, 5, '2026-02-14 16:00:00', null, 40);
insert into inventory (warehouse_id, sku, quantity, reorder_at) values (1, 'BOX-S', 40, 50), (1, 'BOX-L', 12, 10), (2, 'BOX-S', 0, 20), (3, 'TAPE', 7, 5);
insert into alerts (id, shipment_id, level, body, raised_at) values (1, 5, 'error', 'lost', '2026-02-18 12:00:00'), (2, 4, 'warning', 'late', '2026-02-10 06:00:00');
create view deliveries as select s.id, c.company, s.promised_on, s.delivered_at, s.price from shipments s join clients c on c.id = s.client_id where s.status = 'delivered';
create view load_by_warehouse as select w.code, count(s.id) as outgoing, coalesce(sum(s.weight_kg), 0) as kg from warehouses w left join shipments s on s.origin_id = w.id group by w.code;
"""
COLUMNS = {
    "regions": ["id", "name", "parent_id"],
    "warehouses": ["id", "code", "name", "region_id", "capacity", "opened_on"],
    "carriers": ["id", "name", "country", "rating", "services"],
    "vehicles": ["plate", "carrier_id", "kind", "max_kg", "bought_on"],
    "drivers": ["id", "name", "carrier_id", "mentor_id", "licence_until"],
    "clients": ["id", "company", "contact", "country", "tier"],
    "shipments": ["id", "client_id", "origin_id", "destination_id", "created_at", "promised_on", "delivered_at", "status", "weight_kg", "price", "meta"],
    "parcels": ["id", "shipment_id", "barcode", "weight_kg", "length_cm", "width_cm", "height_cm", "fragile"],
    "scans": ["id", "parcel_id", "warehouse_id", "kind", "scanned_at"],
    "trips": ["id", "plate", "driver_id", "shipment_id", "left_at", "arrived_at", "km"],
}

BOTH = statements("""
SELECT * FROM shipments WHERE status != 'delivered' ORDER BY promised_on;

SELECT s.id AS shipment_id, s.status AS shipment_status, c.company AS client_company, o.name AS origin, d.name AS destination
FROM shipments AS s
    INNER JOIN clients AS c ON s.client_id = c.id
    INNER JOIN warehouses AS o ON s.origin_id = o.id
    INNER JOIN warehouses AS d ON s.destination_id = d.id
ORDER BY s.id ASC;

SELECT status, COUNT(*) AS n FROM shipments GROUP BY status ORDER BY n DESC, status;

SELECT c.company, COUNT(s.id) AS shipments, COALESCE(SUM(s.price), 0) AS revenue
FROM clients c
LEFT JOIN shipments s ON s.client_id = c.id
GROUP BY c.id, c.company
ORDER BY revenue DESC;

-- top client in each tier
WITH revenue AS (
  SELECT client_id, SUM(price) AS total FROM shipments GROUP BY client_id
),
ranked AS (
  SELECT c.tier, c.company, r.total, RANK() OVER (PARTITION BY c.tier ORDER BY r.total DESC) AS rnk
  FROM revenue r
  JOIN clients c ON c.id = r.client_id
)
SELECT tier, company, total FROM ranked WHERE rnk = 1 ORDER BY tier;

SELECT id, price / weight_kg AS price_per_kg FROM shipments WHERE weight_kg > 0 ORDER BY price_per_kg DESC LIMIT 5;

SELECT AVG(price) AS avg_price, MIN(price) AS min_price, MAX(price) AS max_price, SUM(weight_kg) AS total_weight FROM shipments;

SELECT p.barcode, p.length_cm * p.width_cm * p.height_cm AS volume
FROM parcels p
ORDER BY volume DESC
LIMIT 3;

SELECT s.id, COUNT(p.id) AS parcels, SUM(p.weight_kg) AS parcel_weight, s.weight_kg AS declared
FROM shipments s JOIN parcels p ON p.shipment_id = s.id
GROUP BY s.id, s.weight_kg
HAVING SUM(p.weight_kg) <> s.weight_kg OR COUNT(p.id) > 1
ORDER BY s.id;

SELECT w.name, COUNT(*) FILTER (WHERE sc.kind = 'in') AS arrivals, COUNT(*) FILTER (WHERE sc.kind = 'out') AS departures
FROM warehouses w
LEFT JOIN scans sc ON sc.warehouse_id = w.id
GROUP BY w.name
ORDER BY w.name;

SELECT parcel_id, kind, scanned_at, LAG(kind) OVER (PARTITION BY parcel_id ORDER BY scanned_at) AS previous_kind, LEAD(scanned_at) OVER (PARTITION BY parcel_id ORDER BY scanned_at) AS next_scan
FROM scans
ORDER BY parcel_id, scanned_at;

SELECT p.barcode
FROM parcels p
WHERE NOT EXISTS (SELECT 1 FROM scans s WHERE s.parcel_id = p.id)
ORDER BY p.barcode;

SELECT p.barcode, (SELECT w.code FROM scans s JOIN warehouses w ON w.id = s.warehouse_id WHERE s.parcel_id = p.id ORDER BY s.scanned_at DESC LIMIT 1) AS last_seen
FROM parcels p
ORDER BY 1;

WITH last_scan AS (SELECT parcel_id, MAX(scanned_at) AS scanned_at FROM scans GROUP BY parcel_id)
SELECT s.parcel_id, s.kind, s.warehouse_id
FROM scans s
JOIN last_scan l ON l.parcel_id = s.parcel_id AND l.scanned_at = s.scanned_at
ORDER BY s.parcel_id;

WITH RECURSIVE region_tree AS (
    SELECT r.id, r.name, r.parent_id, 1 AS depth FROM regions r WHERE r.name = 'Europe'
    UNION ALL
    SELECT c.id, c.name, c.parent_id, rt.depth + 1 FROM regions c INNER JOIN region_tree rt ON c.parent_id = rt.id
)
SELECT rt.depth, rt.name, COUNT(w.id) AS warehouses
FROM region_tree rt
LEFT JOIN warehouses w ON w.region_id = rt.id
GROUP BY rt.depth, rt.name
ORDER BY rt.depth, rt.name;

WITH RECURSIVE mentors(driver, id, mentor_id, steps) AS (
    SELECT name, id, mentor_id, 0 FROM drivers
    UNION ALL
    SELECT m.driver, d.id, d.mentor_id, m.steps + 1 FROM mentors m JOIN drivers d ON d.id = m.mentor_id
)
SELECT driver, MAX(steps) AS seniority FROM mentors GROUP BY driver ORDER BY seniority DESC, driver;

SELECT d.name AS driver, COALESCE(m.name, 'nobody') AS mentor FROM drivers d LEFT JOIN drivers m ON d.mentor_id = m.id ORDER BY d.name;

SELECT d.name, ca.name AS carrier, SUM(t.km) AS km
FROM trips t, drivers d, carriers ca
WHERE t.driver_id = d.id AND d.carrier_id = ca.id
GROUP BY d.name, ca.name
ORDER BY km DESC;

SELECT v.plate, v.kind, COUNT(t.id) AS trips, COALESCE(SUM(t.km), 0) AS km,
       CASE WHEN COUNT(t.id) = 0 THEN 'idle' WHEN SUM(t.km) > 1000 THEN 'busy' ELSE 'normal' END AS usage
FROM vehicles v LEFT JOIN trips t ON t.plate = v.plate
GROUP BY v.plate, v.kind
ORDER BY km DESC, v.plate;

SELECT carriers.name FROM carriers LEFT JOIN vehicles ON vehicles.carrier_id = carriers.id WHERE vehicles.plate IS NULL;

SELECT name, rating FROM carriers WHERE rating IS NOT NULL AND rating >= (SELECT AVG(rating) FROM carriers) ORDER BY rating DESC;

SELECT name, COALESCE(rating, 0) AS rating, DENSE_RANK() OVER (ORDER BY rating DESC NULLS LAST) AS position FROM carriers ORDER BY position, name;

SELECT s.client_id,
       SUM(CASE WHEN s.status = 'delivered' THEN s.price ELSE 0 END) AS delivered,
       SUM(CASE WHEN s.status = 'lost' THEN s.price ELSE 0 END) AS lost,
       SUM(CASE WHEN s.status NOT IN ('delivered', 'lost') THEN s.price ELSE 0 END) AS pending
FROM shipments s GROUP BY s.client_id ORDER BY s.client_id;

SELECT origin_id, destination_id, COUNT(*) AS n, SUM(price) AS revenue FROM shipments GROUP BY 1, 2 ORDER BY 3 DESC, 4 DESC;

SELECT o.code || ' -> ' || d.code AS lane, COUNT(*) AS n, SUM(s.weight_kg) AS kg
FROM shipments s JOIN warehouses o ON o.id = s.origin_id JOIN warehouses d ON d.id = s.destination_id
GROUP BY lane ORDER BY n DESC, lane;

SELECT id, created_at, price, SUM(price) OVER (ORDER BY created_at) AS cumulative, AVG(price) OVER (ORDER BY created_at ROWS 2 PRECEDING) AS moving_average FROM shipments ORDER BY created_at;

SELECT client_id, id, price, ROUND(100.0 * price / SUM(price) OVER (PARTITION BY client_id), 1) AS share FROM shipments ORDER BY client_id, share DESC;

SELECT NTILE(3) OVER (ORDER BY price) AS bucket, id, price FROM shipments ORDER BY bucket, price;

SELECT * FROM deliveries WHERE price > 500 ORDER BY price DESC;

SELECT company, COUNT(*) AS deliveries FROM deliveries GROUP BY company HAVING COUNT(*) > 1;

SELECT l.code, l.kg, w.capacity, l.kg > w.capacity AS over_capacity FROM load_by_warehouse l JOIN warehouses w USING (code) ORDER BY l.code;

SELECT code FROM warehouses WHERE capacity = 0 OR capacity IS NULL OR opened_on IS NULL;

SELECT country, 'client' AS kind, COUNT(*) AS n FROM clients GROUP BY country
UNION ALL
SELECT country, 'carrier' AS kind, COUNT(*) AS n FROM carriers GROUP BY country
ORDER BY country, kind;

SELECT 'heavy' AS label, COUNT(*) AS n FROM shipments WHERE weight_kg >= 500
UNION ALL SELECT 'medium', COUNT(*) FROM shipments WHERE weight_kg >= 100 AND weight_kg < 500
UNION ALL SELECT 'light', COUNT(*) FROM shipments WHERE weight_kg < 100
UNION ALL SELECT 'none', 0;

SELECT country FROM clients INTERSECT SELECT country FROM carriers ORDER BY country;

SELECT DISTINCT c.country, w.code FROM clients c CROSS JOIN warehouses w WHERE c.country = 'NO' ORDER BY w.code;

SELECT c.company, x.n FROM clients c JOIN (SELECT client_id, COUNT(*) AS n FROM shipments WHERE status = 'delivered' GROUP BY client_id) x ON x.client_id = c.id ORDER BY x.n DESC, c.company;

SELECT q.kind, q.avg_km FROM (SELECT v.kind, AVG(t.km) AS avg_km FROM vehicles v JOIN trips t ON t.plate = v.plate GROUP BY v.kind) AS q WHERE q.avg_km > (SELECT AVG(km) FROM trips) ORDER BY q.kind;

SELECT COUNT(*) AS total, COUNT(delivered_at) AS delivered, COUNT(*) - COUNT(delivered_at) AS pending FROM shipments;

SELECT UPPER(SUBSTR(company, 1, 4)) AS short, LENGTH(contact) AS n, REPLACE(contact, 'example', 'x') AS masked FROM clients ORDER BY id;

SELECT s.id, s.price - stats.average AS above
FROM shipments s
CROSS JOIN (SELECT AVG(price) AS average FROM shipments) AS stats
WHERE s.price > stats.average
ORDER BY above DESC;

SELECT * FROM trips t NATURAL JOIN (SELECT 'DK 1' AS plate) AS mine ORDER BY t.id;

SELECT t.id, v.kind, d.name FROM trips t JOIN vehicles v USING (plate) JOIN drivers d ON d.id = t.driver_id ORDER BY t.id;

select s.id, s.status from shipments s where (s.origin_id, s.destination_id) in (select w1.id, w2.id from warehouses w1, warehouses w2 where w1.code = 'OSL' and w2.code = 'CPH') order by s.id;

SELECT a.level, a.body, s.status, c.company FROM alerts a LEFT JOIN shipments s ON s.id = a.shipment_id LEFT JOIN clients c ON c.id = s.client_id ORDER BY a.raised_at DESC;

SELECT i.sku, w.name AS warehouse, i.quantity, i.reorder_at - i.quantity AS missing
FROM inventory i JOIN warehouses w ON w.id = i.warehouse_id
WHERE i.quantity < i.reorder_at
ORDER BY missing DESC;

SELECT "shipments"."id" AS "id", "clients"."company" AS "name" FROM "shipments" INNER JOIN "clients" ON "clients"."id" = "shipments"."client_id" WHERE "shipments"."status" = 'lost';

INSERT INTO alerts (shipment_id, level, body)
SELECT s.id, 'warning', 'Late: promised ' || s.promised_on
FROM shipments s
WHERE s.delivered_at IS NULL AND s.promised_on < '2026-02-20' AND NOT EXISTS (SELECT 1 FROM alerts a WHERE a.shipment_id = s.id)
RETURNING shipment_id, level, body;

INSERT INTO inventory (warehouse_id, sku, quantity) VALUES (1, 'BOX-S', 100), (2, 'TAPE', 30)
ON CONFLICT (warehouse_id, sku) DO UPDATE SET quantity = inventory.quantity + EXCLUDED.quantity
RETURNING *;

INSERT INTO inventory (warehouse_id, sku, quantity, reorder_at) SELECT w.id, 'LABEL', 0, 5 FROM warehouses w WHERE w.capacity > 0 ON CONFLICT (warehouse_id, sku) DO NOTHING;

INSERT INTO inventory VALUES (4, 'BOX-S', 1, 1) RETURNING warehouse_id, sku;

UPDATE inventory SET quantity = quantity - 5 WHERE warehouse_id = 1 AND sku = 'BOX-S' AND quantity >= 5 RETURNING quantity;

UPDATE inventory SET quantity = 0 WHERE warehouse_id IN (SELECT w.id FROM warehouses w JOIN regions r ON r.id = w.region_id WHERE r.name = 'Iberia') RETURNING sku, quantity;

DELETE FROM inventory WHERE quantity = 0;

DELETE FROM alerts WHERE shipment_id IN (SELECT id FROM shipments WHERE status IN ('delivered', 'lost')) RETURNING *;

UPDATE shipments SET status = 'delivered', delivered_at = '2026-02-25 10:00:00' WHERE id = 4 RETURNING id, status, delivered_at;

UPDATE shipments SET status = 'late' WHERE delivered_at IS NULL AND promised_on < '2026-02-20' AND status <> 'lost';

UPDATE clients SET tier = CASE WHEN (SELECT SUM(s.price) FROM shipments s WHERE s.client_id = clients.id) > 3000 THEN 'gold' ELSE tier END RETURNING company, tier;

UPDATE clients SET tier = 'platinum' WHERE id IN (SELECT client_id FROM shipments GROUP BY client_id HAVING SUM(price) > 4000) RETURNING *;

UPDATE shipments SET weight_kg = x.kg FROM (SELECT shipment_id, SUM(weight_kg) AS kg FROM parcels GROUP BY shipment_id) AS x WHERE x.shipment_id = shipments.id AND shipments.status = 'lost' RETURNING shipments.id, shipments.weight_kg;

UPDATE trips SET arrived_at = s.delivered_at FROM shipments AS s WHERE s.id = trips.shipment_id AND trips.arrived_at IS NULL AND s.delivered_at IS NOT NULL;

UPDATE shipments SET price = price * 1.1 FROM clients WHERE clients.id = client_id AND tier = 'gold' AND company > '' RETURNING shipments.id, price;

UPDATE clients SET tier = 'top' FROM (SELECT client_id, SUM(price) AS total FROM shipments GROUP BY client_id) AS x
WHERE client_id = clients.id AND total > 2000
RETURNING clients.id, tier;

UPDATE shipments SET status = UPPER(company) || ' ' || code FROM clients AS c JOIN warehouses AS w ON code = 'OSL'
WHERE c.id = client_id AND capacity > 3 AND (tier = 'gold' OR tier = 'silver');

WITH late AS (SELECT id FROM shipments WHERE delivered_at IS NULL AND promised_on < '2026-02-20')
UPDATE alerts SET level = 'critical' WHERE shipment_id IN (SELECT id FROM late) RETURNING id, level;

WITH doomed AS (SELECT id FROM shipments WHERE status = 'lost')
DELETE FROM alerts WHERE shipment_id IN (SELECT id FROM doomed);
""")

SQLITE = statements("""
UPDATE clients SET tier = "gold" WHERE id = 1 RETURNING id, tier;

SELECT date(created_at) AS day, COUNT(*) AS n, SUM(price) AS revenue FROM shipments GROUP BY day ORDER BY day;

SELECT strftime('%Y-W%W', created_at) AS week, COUNT(*) FROM shipments GROUP BY week ORDER BY week;

SELECT id, ROUND((julianday(arrived_at) - julianday(left_at)) * 24, 1) AS hours, km / ((julianday(arrived_at) - julianday(left_at)) * 24) AS speed FROM trips WHERE arrived_at IS NOT NULL ORDER BY hours DESC;

SELECT id, date(delivered_at) > promised_on AS late, CAST(julianday(date(delivered_at)) - julianday(promised_on) AS INTEGER) AS days FROM shipments WHERE delivered_at IS NOT NULL ORDER BY days DESC, id;

SELECT id, json_extract(meta, '$.priority') AS priority, json_extract(meta, '$.customs.code') AS customs FROM shipments WHERE meta IS NOT NULL ORDER BY id;

SELECT s.id, r.value AS ref FROM shipments s JOIN json_each(s.meta, '$.refs') r ORDER BY s.id, r.key;

SELECT COALESCE(meta ->> '$.priority', 'none') AS priority, COUNT(*) AS n FROM shipments GROUP BY 1 ORDER BY n DESC, 1;

SELECT c.company, GROUP_CONCAT(s.id) AS ids FROM clients c LEFT JOIN shipments s ON s.client_id = c.id GROUP BY c.company ORDER BY c.company;

SELECT name FROM drivers WHERE licence_until BETWEEN date('2026-03-01') AND date('2026-03-01', '+1 month', 'start of month', '-1 day');

SELECT d.name, CASE WHEN d.licence_until < date('now') THEN 'expired' ELSE 'valid' END AS licence FROM drivers d ORDER BY d.id;

SELECT plate, CAST(strftime('%Y', '2026-03-01') AS INTEGER) - CAST(strftime('%Y', bought_on) AS INTEGER) AS age FROM vehicles WHERE age > 3 ORDER BY age DESC;

SELECT w.code, TOTAL(i.quantity) AS stock FROM warehouses w LEFT JOIN inventory i ON i.warehouse_id = w.id GROUP BY w.code ORDER BY stock DESC, w.code;

INSERT INTO inventory (warehouse_id, sku, quantity) SELECT id, 'PALLET', capacity / 100 FROM warehouses WHERE true ON CONFLICT (warehouse_id, sku) DO UPDATE SET quantity = excluded.quantity RETURNING warehouse_id, quantity;

REPLACE INTO inventory (warehouse_id, sku, quantity, reorder_at) VALUES (3, 'TAPE', 99, 5);

UPDATE shipments SET meta = json_set(COALESCE(meta, '{}'), '$.priority', 'high') WHERE client_id = (SELECT id FROM clients WHERE company LIKE 'Bolt%') RETURNING id, meta;

UPDATE OR IGNORE warehouses SET code = 'OSL' WHERE code = 'CPH';

SELECT substr(contact, instr(contact, '@') + 1) AS domain, count(*) AS n FROM clients WHERE contact IS NOT NULL GROUP BY domain ORDER BY domain;

SELECT datetime(MAX(scanned_at), '+1 hour') AS next_check, MAX(scanned_at) FROM scans;

SELECT company, country FROM clients ORDER BY CASE country WHEN 'NO' THEN 0 ELSE 1 END, company COLLATE NOCASE;

SELECT p.barcode, IIF(p.fragile, 'yes', 'no') AS fragile, p.weight_kg || ' kg' AS weight FROM parcels p WHERE p.fragile = 1 ORDER BY p.weight_kg DESC;

SELECT COUNT(*) * 1.0 / (SELECT COUNT(*) FROM shipments) AS share FROM shipments WHERE status IS 'delivered';
""")

POSTGRES = statements("""
SELECT created_at::date AS day, COUNT(*) AS n, SUM(price) AS revenue FROM shipments GROUP BY day ORDER BY day;

SELECT date_trunc('week', created_at) AS week, COUNT(*) FROM shipments GROUP BY 1 ORDER BY 1;

SELECT id, EXTRACT(EPOCH FROM (arrived_at - left_at)) / 3600 AS hours, ROUND(km / (EXTRACT(EPOCH FROM (arrived_at - left_at)) / 3600), 1) AS speed FROM trips WHERE arrived_at IS NOT NULL ORDER BY hours DESC;

SELECT id, delivered_at::date > promised_on AS late, delivered_at::date - promised_on AS days FROM shipments WHERE delivered_at IS NOT NULL ORDER BY days DESC, id;

SELECT id, meta->>'priority' AS priority, meta #>> '{customs,code}' AS customs, jsonb_array_length(meta->'refs') AS refs FROM shipments WHERE meta IS NOT NULL ORDER BY id;

SELECT s.id, r.ref, r.ord FROM shipments s CROSS JOIN LATERAL jsonb_array_elements_text(s.meta->'refs') WITH ORDINALITY AS r(ref, ord) ORDER BY s.id, r.ord;

SELECT COALESCE(meta->>'priority', 'none') AS priority, COUNT(*) AS n FROM public.shipments GROUP BY 1 ORDER BY n DESC, 1;

SELECT id FROM shipments WHERE meta @> '{"priority": "high"}' AND meta ? 'customs';

SELECT name FROM carriers WHERE services && ARRAY['sea', 'express']::text[] ORDER BY name;

SELECT service, array_agg(c.name ORDER BY c.name) AS carriers FROM carriers c CROSS JOIN unnest(c.services) AS service GROUP BY service ORDER BY service;

SELECT m.month::date, COALESCE(SUM(s.price), 0) AS revenue
FROM generate_series(DATE '2025-12-01', DATE '2026-03-01', INTERVAL '1 month') AS m(month)
LEFT JOIN shipments s ON date_trunc('month', s.created_at) = m.month
GROUP BY m.month ORDER BY m.month;

SELECT c.company, s.* FROM clients c JOIN LATERAL (SELECT id, price, status FROM shipments WHERE client_id = c.id ORDER BY price DESC LIMIT 1) s ON true ORDER BY c.company;

SELECT DISTINCT ON (p.id) p.barcode, w.code, s.kind, s.scanned_at FROM parcels p JOIN scans s ON s.parcel_id = p.id JOIN warehouses w ON w.id = s.warehouse_id ORDER BY p.id, s.scanned_at DESC;

SELECT c.*, COUNT(s.id) AS shipments, MAX(s.created_at) AS last_shipment FROM clients c LEFT JOIN shipments s ON s.client_id = c.id GROUP BY c.id ORDER BY c.id;

SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY price) AS median, percentile_disc(0.9) WITHIN GROUP (ORDER BY price) AS p90 FROM shipments;

SELECT origin_id, status, COUNT(*) FROM shipments GROUP BY CUBE (origin_id, status) ORDER BY 1 NULLS LAST, 2 NULLS LAST;

SELECT d.name, d.licence_until - DATE '2026-03-01' AS days_left FROM drivers d WHERE d.licence_until < DATE '2026-03-01' + INTERVAL '1 year' ORDER BY days_left;

SELECT plate, DATE_PART('year', AGE(DATE '2026-03-01', bought_on)) AS age FROM vehicles ORDER BY age DESC, plate;

SELECT w.code, STRING_AGG(i.sku || ' x' || i.quantity, '; ' ORDER BY i.sku) AS goods FROM warehouses w JOIN inventory i ON i.warehouse_id = w.id GROUP BY w.id, w.code ORDER BY w.code;

SELECT jsonb_pretty(jsonb_agg(to_jsonb(v) ORDER BY v.plate)) FROM vehicles v WHERE v.carrier_id = 1;

SELECT row_to_json(x) FROM (SELECT s.id, c.company, s.price FROM shipments s JOIN clients c ON c.id = s.client_id ORDER BY s.id LIMIT 2) x;

SELECT split_part(contact, '@', 2) AS domain, COUNT(*) AS n FROM clients WHERE contact ~* '^[a-z]+@' GROUP BY domain ORDER BY domain;

SELECT GREATEST(length_cm, width_cm, height_cm) AS longest, LEAST(length_cm, width_cm, height_cm) AS shortest FROM parcels ORDER BY id;

WITH RECURSIVE sub AS (SELECT id, name, ARRAY[name] AS path FROM regions WHERE parent_id IS NULL UNION ALL SELECT r.id, r.name, sub.path || r.name FROM regions r JOIN sub ON r.parent_id = sub.id)
SELECT array_to_string(path, ' / ') AS path FROM sub ORDER BY path;

INSERT INTO inventory AS i (warehouse_id, sku, quantity) SELECT w.id, 'PALLET', w.capacity / 100 FROM warehouses w ON CONFLICT (warehouse_id, sku) DO UPDATE SET quantity = i.quantity + EXCLUDED.quantity WHERE i.quantity < 100 RETURNING i.warehouse_id, i.quantity;

INSERT INTO shipments (client_id, origin_id, destination_id, created_at, promised_on, status, weight_kg, price, meta)
VALUES ((SELECT id FROM clients WHERE company = 'Acme Example'), 1, 3, '2026-03-01 08:00', '2026-03-08', 'booked', 55, 410, jsonb_build_object('priority', 'low', 'refs', '[]'::jsonb))
RETURNING client_id, promised_on, meta;

UPDATE shipments SET meta = jsonb_set(COALESCE(meta, '{}'::jsonb), '{priority}', '"high"') WHERE client_id = (SELECT id FROM clients WHERE company ILIKE 'bolt%') RETURNING id, meta;

UPDATE shipments AS s SET price = s.price * 0.9 FROM clients AS c WHERE c.id = s.client_id AND c.tier = 'gold' AND s.delivered_at > s.promised_on RETURNING s.id, c.company, s.price;

UPDATE warehouses SET (capacity, opened_on) = (ROW(50, DATE '2026-03-01')) WHERE code = 'MAD' RETURNING *;

DELETE FROM alerts AS a USING shipments AS s WHERE s.id = a.shipment_id AND s.status = 'lost' RETURNING a.id, s.client_id;

MERGE INTO inventory AS t USING (SELECT w.id AS warehouse_id, 'BOX-S' AS sku, 5 AS extra FROM warehouses w) AS x ON t.warehouse_id = x.warehouse_id AND t.sku = x.sku
WHEN MATCHED THEN UPDATE SET quantity = t.quantity + x.extra
WHEN NOT MATCHED THEN INSERT (warehouse_id, sku, quantity) VALUES (x.warehouse_id, x.sku, x.extra);

WITH gone AS (DELETE FROM alerts WHERE level = 'error' RETURNING *), noted AS (INSERT INTO alerts (shipment_id, level, body) SELECT shipment_id, 'info', 'closed: ' || body FROM gone RETURNING shipment_id, body)
SELECT n.shipment_id, n.body, s.status FROM noted n JOIN shipments s ON s.id = n.shipment_id;

SELECT id FROM shipments WHERE status = 'booked' ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED;

SELECT TO_CHAR(created_at, 'YYYY-MM') AS month, SUM(price) FILTER (WHERE status = 'delivered') AS delivered, LAG(SUM(price)) OVER (ORDER BY TO_CHAR(created_at, 'YYYY-MM')) AS previous FROM shipments GROUP BY 1 ORDER BY 1;
""")

WORLD = World(SCHEMA, COLUMNS, ("inventory", "alerts"), ("deliveries", "load_by_warehouse"), BOTH, SQLITE, POSTGRES)
