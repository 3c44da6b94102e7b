"""A clinic, and what models answer when people there ask for something: each statement as it comes, over several lines.

What is in « » is hidden. Some of it goes by the names that an answer would choose itself (`age`, `name`, `total`, `month`).
"""

from __future__ import annotations

from .ordinary import World, statements

SCHEMA = """
create table departments (id {key}, name text not null, parent_id integer, floor integer «, budget integer default 7»);
create table patients (id {key}, «name text default 'hidden',» first_name text, last_name text, birth_date date, sex text, city text, phone text, registered_on date,
    active boolean «, national_id text default 'hidden', age integer default 1, total integer default 5»);
create table doctors (id {key}, first_name text, last_name text, specialty text, department_id integer, hired_on date, languages {list} «, salary integer default 900, name text default 'hidden'»);
create table appointments (id {key}, patient_id integer, doctor_id integer, starts_at timestamp, minutes integer, status text, reason text «, hour integer default 3, private_note text default 'hidden'»);
create table visits (id {key}, appointment_id integer, patient_id integer, doctor_id integer, visited_on date, weight_kg numeric(5,1), systolic integer, diastolic integer, summary text
    «, diagnosis text default 'hidden', month text default 'hidden'»);
create table drugs (id {key}, code text unique, name text, class text, unit_price numeric(8,2), info {json} «, wholesale numeric(8,2) default 1»);
create table prescriptions (id {key}, visit_id integer, drug_id integer, dose_mg integer, days integer, prescribed_on date, repeats integer default 0 «, cost integer default 2, override text default 'hidden'»);
create table lab_results (id {key}, patient_id integer, test text, value numeric(8,2), unit text, taken_at timestamp «, rank integer default 9, sample text default 'hidden'»);
create table invoices (id {key}, patient_id integer, issued_on date, due_on date, amount numeric(10,2), paid numeric(10,2), state text «, total integer default 4, discount text default 'hidden'»);
create table rooms (number text primary key, department_id integer, beds integer «, alarm text default 'hidden'»);
create table reminders (id {key}, patient_id integer, due_on date, channel text, message text, sent boolean default false, unique (patient_id, due_on));
insert into departments (id, name, parent_id, floor) values (1, 'Medicine', null, 0), (2, 'Cardiology', 1, 2), (3, 'Paediatrics', 1, 1), (4, 'Surgery', null, 3), (5, 'Day surgery', 4, 3);
insert into patients (id, first_name, last_name, birth_date, sex, city, phone, registered_on, active) values
    (1, 'Ada', 'Alm', '1950-02-03', 'f', 'Oslo', '555-0101', '2019-04-01', true), (2, 'Ben', 'Berg', '1988-11-20', 'm', 'Bergen', null, '2020-06-15', true),
    (3, 'Cal', 'Alm', '2015-07-07', 'm', 'Oslo', '555-0103', '2022-01-10', true), (4, 'Dee', 'Dahl', '1972-12-31', 'f', null, '555-0104', '2023-09-09', false),
    (5, 'Eli', 'Eng', '2001-05-05', 'm', 'Trondheim', '', '2025-12-24', true), (6, 'Flo', 'Foss', '1965-08-18', 'f', 'Oslo', '555-0106', '2026-01-02', true);
insert into doctors (id, first_name, last_name, specialty, department_id, hired_on, languages) values (1, 'Gro', 'Gran', 'cardiology', 2, '2010-01-01', '{en,no}'),
    (2, 'Han', 'Holm', 'paediatrics', 3, '2018-08-01', '{no}'), (3, 'Ida', 'Iversen', 'general', 1, '2021-03-01', '{en,de,no}'), (4, 'Jon', 'Juul', 'surgery', 4, '2024-10-01', '{}');
insert into appointments (id, patient_id, doctor_id, starts_at, minutes, status, reason) values (1, 1, 1, '2026-01-05 09:00:00', 30, 'done', 'check-up'),
    (2, 2, 3, '2026-01-05 10:30:00', 20, 'done', 'cough'), (3, 3, 2, '2026-01-06 09:15:00', 15, 'done', 'vaccine'), (4, 1, 1, '2026-02-03 09:00:00', 30, 'done', 'follow-up'),
    (5, 4, 3, '2026-02-04 14:00:00', 20, 'missed', 'back pain'), (6, 5, 3, '2026-02-10 11:00:00', 20, 'cancelled', null), (7, 6, 1, '2026-02-10 09:45:00', 45, 'done', 'chest pain'),
    (8, 1, 3, '2026-03-02 09:00:00', 20, 'booked', 'flu shot'), (9, 3, 2, '2026-03-03 13:30:00', 15, 'booked', 'check-up');
insert into visits (id, appointment_id, patient_id, doctor_id, visited_on, weight_kg, systolic, diastolic, summary) values (1, 1, 1, 1, '2026-01-05', 71.5, 150, 95, 'raised pressure'),
    (2, 2, 2, 3, '2026-01-05', 83.0, 125, 80, 'bronchitis'), (3, 3, 3, 2, '2026-01-06', 31.2, 100, 65, 'healthy'), (4, 4, 1, 1, '2026-02-03', 70.8, 138, 88, 'better'),
    (5, 7, 6, 1, '2026-02-10', 64.0, 162, 101, 'sent to hospital');
insert into drugs (id, code, name, class, unit_price, info) values (1, 'AML5', 'Amlodipine', 'calcium blocker', 0.12, '{"form": "tablet", "tags": ["heart"]}'),
    (2, 'AMX', 'Amoxicillin', 'antibiotic', 0.40, '{"form": "capsule", "tags": ["infection", "oral"]}'), (3, 'ASA', 'Aspirin', 'antiplatelet', 0.05, '{"form": "tablet", "tags": []}'),
    (4, 'VITD', 'Vitamin D', 'vitamin', 0.02, '{"form": "drops"}');
insert into prescriptions (id, visit_id, drug_id, dose_mg, days, prescribed_on, repeats) values (1, 1, 1, 5, 30, '2026-01-05', 2), (2, 2, 2, 500, 7, '2026-01-05', 0),
    (3, 4, 1, 10, 30, '2026-02-03', 3), (4, 5, 3, 75, 90, '2026-02-10', 1), (5, 5, 1, 5, 30, '2026-02-10', 1);
insert into lab_results (id, patient_id, test, value, unit, taken_at) values (1, 1, 'hba1c', 6.1, '%', '2026-01-05 09:20:00'), (2, 1, 'hba1c', 5.8, '%', '2026-02-03 09:10:00'),
    (3, 2, 'crp', 48, 'mg/l', '2026-01-05 10:40:00'), (4, 6, 'troponin', 0.9, 'ng/ml', '2026-02-10 10:00:00'), (5, 6, 'crp', 12, 'mg/l', '2026-02-10 10:00:00'), (6, 1, 'crp', 3, 'mg/l', '2026-02-03 09:10:00');
insert into invoices (id, patient_id, issued_on, due_on, amount, paid, state) values (1, 1, '2026-01-05', '2026-02-04', 120.00, 120.00, 'paid'), (2, 2, '2026-01-05', '2026-02-04', 80.50, 40.00, 'open'),
    (3, 3, '2026-01-06', '2026-02-05', 30.00, 0, 'waived'), (4, 1, '2026-02-03', '2026-03-05', 120.00, 0, 'open'), (5, 6, '2026-02-10', '2026-03-12', 310.25, 0, 'open');
insert into rooms (number, department_id, beds) values ('201', 2, 2), ('202', 2, 1), ('101', 3, 4), ('301', 4, 3), ('000', null, 1);
insert into reminders (id, patient_id, due_on, channel, message, sent) values (1, 1, '2026-03-01', 'sms', 'flu shot', false), (2, 3, '2026-03-02', 'letter', 'check-up', false), (3, 2, '2026-01-04', 'sms', 'cough', true);
create view patient_balances as select patient_id, sum(amount - paid) as balance, count(*) as invoices from invoices where state <> 'waived' group by patient_id;
create view agenda as select a.id, a.starts_at, p.first_name, p.last_name, d.last_name as doctor from appointments a join patients p on p.id = a.patient_id join doctors d on d.id = a.doctor_id where a.status = 'booked';
"""
COLUMNS = {
    "departments": ["id", "name", "parent_id", "floor"],
    "patients": ["id", "first_name", "last_name", "birth_date", "sex", "city", "phone", "registered_on", "active"],
    "doctors": ["id", "first_name", "last_name", "specialty", "department_id", "hired_on", "languages"],
    "appointments": ["id", "patient_id", "doctor_id", "starts_at", "minutes", "status", "reason"],
    "visits": ["id", "appointment_id", "patient_id", "doctor_id", "visited_on", "weight_kg", "systolic", "diastolic", "summary"],
    "drugs": ["id", "code", "name", "class", "unit_price", "info"],
    "prescriptions": ["id", "visit_id", "drug_id", "dose_mg", "days", "prescribed_on", "repeats"],
    "lab_results": ["id", "patient_id", "test", "value", "unit", "taken_at"],
    "invoices": ["id", "patient_id", "issued_on", "due_on", "amount", "paid", "state"],
    "rooms": ["number", "department_id", "beds"],
}

BOTH = statements("""
SELECT * FROM patients;

SELECT COUNT(*) AS total FROM patients WHERE active = TRUE;

-- How many patients do we have in each city?
SELECT
    COALESCE(city, 'Unknown') AS city,
    COUNT(*) AS total
FROM patients
GROUP BY COALESCE(city, 'Unknown')
ORDER BY total DESC, city ASC;

SELECT first_name || ' ' || last_name AS name, phone
FROM patients
WHERE phone IS NOT NULL AND TRIM(phone) <> ''
ORDER BY name
LIMIT 10;

SELECT "p"."id", "p"."first_name", "p"."last_name"
FROM "patients" AS "p"
WHERE "p"."city" = 'Oslo'
ORDER BY "p"."last_name" ASC, "p"."first_name" ASC;

SELECT p.first_name, p.last_name, d.last_name AS doctor, a.starts_at
FROM appointments AS a
INNER JOIN patients AS p ON a.patient_id = p.id
INNER JOIN doctors AS d ON a.doctor_id = d.id
WHERE a.status = 'booked'
ORDER BY a.starts_at;

/* Patients who never had an appointment */
SELECT p.*
FROM patients p
LEFT JOIN appointments a ON a.patient_id = p.id
WHERE a.id IS NULL;

SELECT d.first_name, d.last_name,
       COUNT(a.id) AS appointments,
       SUM(CASE WHEN a.status = 'done' THEN 1 ELSE 0 END) AS done,
       SUM(CASE WHEN a.status = 'missed' THEN 1 ELSE 0 END) AS missed
FROM doctors d
LEFT JOIN appointments a ON a.doctor_id = d.id
GROUP BY d.id, d.first_name, d.last_name
ORDER BY appointments DESC, d.last_name;

SELECT specialty, COUNT(*) AS n, MIN(hired_on) AS first_hired
FROM doctors
GROUP BY specialty
HAVING COUNT(*) >= 1
ORDER BY 2 DESC, 1;

WITH ranked AS (
    SELECT
        lr.*,
        ROW_NUMBER() OVER (PARTITION BY lr.patient_id, lr.test ORDER BY lr.taken_at DESC) AS rn
    FROM lab_results AS lr
)
SELECT p.last_name, r.test, r.value, r.unit
FROM ranked AS r
JOIN patients AS p ON p.id = r.patient_id
WHERE r.rn = 1
ORDER BY p.last_name, r.test;

SELECT patient_id, test, value,
       RANK() OVER (PARTITION BY test ORDER BY value DESC) AS rank
FROM lab_results
ORDER BY test, rank, patient_id;

SELECT v.patient_id, v.visited_on, v.systolic,
       v.systolic - LAG(v.systolic) OVER (PARTITION BY v.patient_id ORDER BY v.visited_on) AS change
FROM visits v
ORDER BY v.patient_id, v.visited_on;

SELECT
    CASE
        WHEN systolic >= 160 OR diastolic >= 100 THEN 'stage 2'
        WHEN systolic >= 140 OR diastolic >= 90 THEN 'stage 1'
        WHEN systolic >= 130 THEN 'elevated'
        ELSE 'normal'
    END AS category,
    COUNT(*) AS patients
FROM visits
GROUP BY category
ORDER BY patients DESC, category;

SELECT p.last_name, i.amount - i.paid AS open_amount
FROM invoices i JOIN patients p ON i.patient_id = p.id
WHERE i.state = 'open' AND i.due_on < '2026-03-10'
ORDER BY open_amount DESC;

SELECT SUM(amount) AS total, SUM(paid) AS paid, SUM(amount) - SUM(paid) AS outstanding
FROM invoices
WHERE state <> 'waived';

SELECT p.id, p.last_name, SUM(i.amount) AS total
FROM patients p
JOIN invoices i ON i.patient_id = p.id
GROUP BY p.id, p.last_name
HAVING SUM(i.amount) > (SELECT AVG(amount) FROM invoices)
ORDER BY total DESC;

SELECT state, COUNT(*) AS count, ROUND(AVG(amount), 2) AS average, ROUND(100.0 * COUNT(*) / (SELECT COUNT(*) FROM invoices), 1) AS percent
FROM invoices GROUP BY state ORDER BY count DESC, state;

SELECT id, issued_on, amount,
       SUM(amount) OVER (ORDER BY issued_on, id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS running_total
FROM invoices
ORDER BY issued_on, id;

SELECT d.name AS drug, COUNT(pr.id) AS prescriptions, SUM(pr.days * (pr.repeats + 1)) AS total_days, SUM(pr.days * (pr.repeats + 1) * d.unit_price) AS cost
FROM drugs AS d
LEFT JOIN prescriptions AS pr ON pr.drug_id = d.id
GROUP BY d.id, d.name
ORDER BY cost DESC NULLS LAST, drug;

SELECT name FROM drugs WHERE id NOT IN (SELECT drug_id FROM prescriptions);

SELECT name, unit_price FROM drugs WHERE unit_price = (SELECT MAX(unit_price) FROM drugs);

SELECT p.first_name
FROM patients p
WHERE EXISTS (
    SELECT 1
    FROM visits v
    WHERE v.patient_id = p.id
      AND EXISTS (
          SELECT 1 FROM prescriptions x
          JOIN drugs d ON d.id = x.drug_id
          WHERE x.visit_id = v.id AND d.class = 'calcium blocker'
      )
)
ORDER BY p.first_name;

WITH RECURSIVE tree AS (
    SELECT id, name, parent_id, 0 AS level, CAST(name AS text) AS path
    FROM departments
    WHERE parent_id IS NULL
    UNION ALL
    SELECT d.id, d.name, d.parent_id, t.level + 1, t.path || ' > ' || d.name
    FROM departments d
    JOIN tree t ON d.parent_id = t.id
)
SELECT level, path FROM tree ORDER BY path;

SELECT child.name AS department, COALESCE(parent.name, '(none)') AS belongs_to
FROM departments child
LEFT OUTER JOIN departments parent ON child.parent_id = parent.id
ORDER BY child.id;

SELECT dep.name, COALESCE(SUM(r.beds), 0) AS beds, COUNT(r.number) AS rooms
FROM departments dep
LEFT JOIN rooms r ON r.department_id = dep.id
GROUP BY dep.name
ORDER BY beds DESC, dep.name;

SELECT 'patients' AS what, COUNT(*) AS n FROM patients
UNION ALL
SELECT 'doctors', COUNT(*) FROM doctors
UNION ALL
SELECT 'appointments', COUNT(*) FROM appointments
ORDER BY what;

SELECT last_name, 'patient' AS role FROM patients
UNION
SELECT last_name, 'doctor' AS role FROM doctors
ORDER BY 1, 2;

SELECT * FROM (
    SELECT a.*, COUNT(*) OVER () AS total_count
    FROM appointments a
    WHERE a.status IN ('done', 'booked')
) AS page
ORDER BY starts_at DESC
LIMIT 3 OFFSET 3;

SELECT * FROM (SELECT id, last_name, ROW_NUMBER() OVER (ORDER BY last_name, id) AS row_num FROM patients) t WHERE row_num BETWEEN 2 AND 4 ORDER BY row_num;

SELECT last_name, COUNT(*) FROM patients GROUP BY last_name HAVING COUNT(*) > 1;

SELECT a.id, b.id
FROM patients a
JOIN patients b ON a.last_name = b.last_name AND a.city = b.city AND a.id < b.id;

SELECT p.first_name, p.last_name, b.balance
FROM patient_balances b
INNER JOIN patients p ON p.id = b.patient_id
WHERE b.balance > 0
ORDER BY b.balance DESC;

SELECT * FROM agenda ORDER BY starts_at;

SELECT doctor, COUNT(*) AS booked FROM agenda GROUP BY doctor ORDER BY booked DESC, doctor;

SELECT p.id, p.first_name,
    (SELECT MAX(v.visited_on) FROM visits v WHERE v.patient_id = p.id) AS last_visit,
    (SELECT COUNT(*) FROM appointments a WHERE a.patient_id = p.id AND a.status = 'missed') AS missed,
    COALESCE((SELECT SUM(i.amount - i.paid) FROM invoices i WHERE i.patient_id = p.id AND i.state = 'open'), 0) AS owes
FROM patients p
ORDER BY owes DESC, p.id;

SELECT DISTINCT p.city FROM patients p INNER JOIN visits v ON v.patient_id = p.id WHERE p.city IS NOT NULL ORDER BY p.city;

SELECT COUNT(DISTINCT patient_id) AS unique_patients, COUNT(*) AS visits FROM visits WHERE visited_on >= '2026-01-01' AND visited_on < '2026-02-01';

SELECT doctor_id,
       COUNT(*) FILTER (WHERE status = 'done') AS done,
       COUNT(*) FILTER (WHERE status <> 'done') AS other,
       SUM(minutes) FILTER (WHERE status = 'done') AS minutes
FROM appointments GROUP BY doctor_id ORDER BY doctor_id;

SELECT patients.first_name, visits.summary FROM patients, visits WHERE patients.id = visits.patient_id AND visits.weight_kg > 65 ORDER BY visits.id;

SELECT p.last_name AS "Last name", COUNT(*) AS "Number of visits" FROM patients p JOIN visits v ON v.patient_id = p.id GROUP BY p.last_name ORDER BY "Number of visits" DESC, "Last name";

WITH per_patient AS (
    SELECT patient_id, AVG(systolic) AS avg_sys FROM visits GROUP BY patient_id
), flagged AS (
    SELECT patient_id FROM per_patient WHERE avg_sys > 140
)
SELECT p.first_name, pp.avg_sys > 150 AS severe
FROM flagged f
JOIN per_patient pp USING (patient_id)
JOIN patients p ON p.id = f.patient_id
ORDER BY p.first_name;

SELECT p.id FROM patients p EXCEPT SELECT v.patient_id FROM visits v ORDER BY 1;

SELECT patient_id FROM visits INTERSECT SELECT patient_id FROM lab_results ORDER BY patient_id;

SELECT LOWER(SUBSTR(first_name, 1, 1) || last_name) AS login, LENGTH(last_name) AS len FROM doctors ORDER BY len DESC, login;

SELECT id, NULLIF(phone, '') AS phone, COALESCE(NULLIF(phone, ''), city, 'no contact') AS contact FROM patients ORDER BY id;

SELECT id, status, CASE status WHEN 'done' THEN 'Completed' WHEN 'booked' THEN 'Upcoming' ELSE 'Did not happen' END AS label FROM appointments ORDER BY id;

SELECT test, MIN(value) AS lowest, MAX(value) AS highest, MAX(value) - MIN(value) AS spread FROM lab_results GROUP BY test ORDER BY spread DESC;

SELECT x.patient_id, x.first_value_of_test, x.value
FROM (
    SELECT patient_id, value, FIRST_VALUE(value) OVER w AS first_value_of_test
    FROM lab_results WHERE test = 'hba1c'
    WINDOW w AS (PARTITION BY patient_id ORDER BY taken_at)
) x
ORDER BY x.value;

SELECT p.last_name, d.name, d.unit_price * pr.days AS price
FROM prescriptions pr
JOIN drugs d ON d.id = pr.drug_id
JOIN visits v ON v.id = pr.visit_id
JOIN patients p ON p.id = v.patient_id
WHERE d.unit_price BETWEEN 0.01 AND 0.2 AND pr.repeats > 0
ORDER BY price DESC, d.name;

SELECT a.reason FROM appointments a WHERE a.reason LIKE '%pain%' OR a.reason LIKE 'check%' ORDER BY a.reason, a.id;

select d.last_name from doctors d where not exists (select * from appointments a where a.doctor_id = d.id);

INSERT INTO reminders (patient_id, due_on, channel, message) VALUES (5, '2026-04-01', 'sms', 'Please call us') RETURNING id;

INSERT INTO reminders (patient_id, due_on, channel, message)
SELECT a.patient_id, '2026-03-01', CASE WHEN p.phone IS NULL OR p.phone = '' THEN 'letter' ELSE 'sms' END, 'Appointment: ' || COALESCE(a.reason, '?')
FROM appointments a
JOIN patients p ON p.id = a.patient_id
WHERE a.status = 'booked'
ON CONFLICT (patient_id, due_on) DO UPDATE SET message = EXCLUDED.message, channel = EXCLUDED.channel
RETURNING patient_id, channel, message;

INSERT INTO reminders (patient_id, due_on, channel, message) VALUES (1, '2026-03-01', 'sms', 'again'), (4, '2026-03-01', 'sms', 'hello')
ON CONFLICT DO NOTHING
RETURNING patient_id;

UPDATE reminders SET sent = TRUE WHERE due_on <= '2026-03-01' AND NOT sent RETURNING *;

DELETE FROM reminders WHERE sent = TRUE;

DELETE FROM reminders WHERE patient_id IN (SELECT id FROM patients WHERE city = 'Oslo') RETURNING id, message;

UPDATE appointments SET status = 'cancelled' WHERE id = 8 AND status = 'booked';

UPDATE patients SET phone = NULL WHERE phone = '' RETURNING id, phone;

UPDATE invoices
SET paid = amount, state = 'paid'
WHERE patient_id = (SELECT id FROM patients WHERE first_name = 'Ben' AND last_name = 'Berg')
  AND state = 'open'
RETURNING id, amount, paid, state;

UPDATE patients SET active = FALSE
WHERE id NOT IN (SELECT patient_id FROM visits WHERE patient_id IS NOT NULL)
RETURNING *;

UPDATE drugs SET unit_price = ROUND(unit_price * 1.1, 2) WHERE class = 'antibiotic' RETURNING code, unit_price;

UPDATE rooms SET beds = beds + 1 WHERE department_id = (SELECT d.id FROM departments d WHERE d.name = 'Cardiology');

UPDATE appointments SET minutes = v.m FROM (SELECT doctor_id, MAX(minutes) AS m FROM appointments GROUP BY doctor_id) AS v
WHERE v.doctor_id = appointments.doctor_id AND appointments.status = 'booked'
RETURNING appointments.id, appointments.minutes;

UPDATE reminders SET message = p.first_name || ': ' || message FROM patients p WHERE p.id = reminders.patient_id RETURNING reminders.id, reminders.message;
""")

SQLITE = statements("""
SELECT strftime('%Y-%m', visited_on) AS month, COUNT(*) AS visits FROM visits GROUP BY month ORDER BY month;

SELECT first_name, CAST((julianday('2026-03-01') - julianday(birth_date)) / 365.25 AS INTEGER) AS age FROM patients ORDER BY age DESC;

SELECT first_name, last_name,
       (strftime('%Y', '2026-03-01') - strftime('%Y', birth_date)) - (strftime('%m-%d', '2026-03-01') < strftime('%m-%d', birth_date)) AS age
FROM patients
WHERE age >= 18
ORDER BY age;

SELECT strftime('%H', starts_at) AS hour, COUNT(*) AS n FROM appointments GROUP BY hour ORDER BY n DESC, hour;

SELECT CASE CAST(strftime('%w', starts_at) AS INTEGER) WHEN 1 THEN 'Mon' WHEN 2 THEN 'Tue' ELSE 'other' END AS weekday, COUNT(*) FROM appointments GROUP BY 1 ORDER BY 2 DESC, 1;

SELECT COUNT(*) FROM appointments WHERE date(starts_at) >= date('now', '-30 days');

SELECT id, datetime(starts_at, '+' || minutes || ' minutes') AS ends_at FROM appointments ORDER BY ends_at;

SELECT d.name, json_extract(d.info, '$.form') AS form, json_array_length(d.info, '$.tags') AS tags FROM drugs d ORDER BY d.name;

SELECT d.name, t.value AS tag FROM drugs AS d, json_each(d.info, '$.tags') AS t ORDER BY d.name, tag;

SELECT info ->> 'form' AS form, GROUP_CONCAT(name, ', ') AS drugs FROM (SELECT * FROM drugs ORDER BY name) GROUP BY form ORDER BY form;

WITH RECURSIVE dates(day) AS (
    SELECT date('2026-02-01')
    UNION ALL
    SELECT date(day, '+1 day') FROM dates WHERE day < '2026-02-07'
)
SELECT day, COUNT(a.id) AS appointments
FROM dates LEFT JOIN appointments a ON date(a.starts_at) = day
GROUP BY day ORDER BY day;

SELECT printf('%.2f', SUM(amount)) AS total, printf('%s (%d)', state, COUNT(*)) AS label FROM invoices GROUP BY state ORDER BY label;

SELECT IFNULL(city, 'Unknown') city, COUNT(*) cnt FROM patients GROUP BY city ORDER BY cnt DESC, city;

SELECT IIF(active, 'yes', 'no') AS is_active, COUNT(*) FROM patients GROUP BY is_active;

SELECT * FROM patients WHERE last_name LIKE 'a%' COLLATE NOCASE ORDER BY first_name COLLATE NOCASE DESC;

INSERT OR REPLACE INTO reminders (id, patient_id, due_on, channel, message) SELECT 1, id, '2026-05-01', 'sms', first_name FROM patients WHERE id = 1;

INSERT OR IGNORE INTO reminders (patient_id, due_on, channel, message) SELECT patient_id, date(due_on, '-3 days'), 'sms', 'You owe ' || (amount - paid) FROM invoices WHERE state = 'open';

SELECT json_object('patient', p.last_name, 'visits', json_group_array(json_object('on', v.visited_on, 'bp', v.systolic || '/' || v.diastolic)))
FROM patients p JOIN visits v ON v.patient_id = p.id GROUP BY p.id ORDER BY p.id;

UPDATE appointments SET starts_at = datetime(starts_at, '+1 day') WHERE status = 'booked' AND doctor_id IN (SELECT id FROM doctors WHERE last_name = 'Holm') RETURNING id, starts_at;

SELECT amount FROM invoices ORDER BY amount LIMIT 1 OFFSET (SELECT COUNT(*) FROM invoices) / 2;

SELECT p.last_name, COUNT(*) AS visits FROM patients p JOIN visits v ON v.patient_id = p.id GROUP BY p.id HAVING visits > 1;
""")

POSTGRES = statements("""
SELECT date_trunc('month', v.visited_on)::date AS month, COUNT(*) AS visits FROM visits v GROUP BY 1 ORDER BY 1;

SELECT first_name, EXTRACT(YEAR FROM AGE(DATE '2026-03-01', birth_date))::int AS age FROM patients ORDER BY age DESC;

SELECT CASE WHEN age < 18 THEN 'child' WHEN age < 65 THEN 'adult' ELSE 'senior' END AS age_group, COUNT(*)
FROM (SELECT DATE_PART('year', AGE('2026-03-01'::date, p.birth_date)) AS age FROM patients p) AS ages
GROUP BY age_group
ORDER BY COUNT(*) DESC, age_group;

SELECT to_char(starts_at, 'Dy') AS weekday, EXTRACT(HOUR FROM starts_at) AS hour, COUNT(*) AS n FROM appointments GROUP BY weekday, hour ORDER BY n DESC, weekday, hour;

SELECT COUNT(*) FROM public.appointments WHERE starts_at >= NOW() - INTERVAL '30 days';

SELECT p.last_name, a.starts_at + make_interval(mins => a.minutes) AS ends_at FROM public.appointments a JOIN public.patients p ON p.id = a.patient_id ORDER BY ends_at;

SELECT name, info->>'form' AS form, info->'tags' AS tags FROM drugs WHERE info->>'form' = 'tablet' ORDER BY name;

SELECT d.name, tag.value FROM drugs d CROSS JOIN LATERAL jsonb_array_elements_text(COALESCE(d.info->'tags', '[]'::jsonb)) AS tag(value) ORDER BY 1, 2;

SELECT last_name FROM doctors WHERE 'en' = ANY(languages) ORDER BY last_name;

SELECT lang, COUNT(*) AS doctors FROM doctors, UNNEST(languages) AS lang GROUP BY lang ORDER BY doctors DESC, lang;

SELECT last_name, array_to_string(languages, ', ') AS languages, COALESCE(array_length(languages, 1), 0) AS n, cardinality(languages) FROM doctors WHERE languages @> ARRAY['no'] ORDER BY last_name;

SELECT day::date, COUNT(a.id) AS appointments
FROM generate_series('2026-02-01'::timestamp, '2026-02-07'::timestamp, interval '1 day') AS day
LEFT JOIN appointments a ON a.starts_at::date = day::date
GROUP BY day
ORDER BY day;

SELECT p.first_name, latest.test, latest.value
FROM patients p
LEFT JOIN LATERAL (
    SELECT lr.test, lr.value FROM lab_results lr WHERE lr.patient_id = p.id ORDER BY lr.taken_at DESC, lr.id LIMIT 1
) latest ON TRUE
ORDER BY p.first_name;

SELECT DISTINCT ON (patient_id, test) patient_id, test, value, taken_at FROM lab_results ORDER BY patient_id, test, taken_at DESC;

SELECT percentile_cont(ARRAY[0.25, 0.5, 0.75]) WITHIN GROUP (ORDER BY amount) AS quartiles, mode() WITHIN GROUP (ORDER BY state) AS usual FROM invoices;

SELECT d.last_name, string_agg(DISTINCT p.last_name, ', ' ORDER BY p.last_name) AS patients FROM doctors d JOIN appointments a ON a.doctor_id = d.id JOIN patients p ON p.id = a.patient_id GROUP BY d.id ORDER BY d.last_name;

SELECT json_build_object('name', concat_ws(' ', p.first_name, p.last_name), 'visits', COALESCE(json_agg(json_build_object('on', v.visited_on, 'summary', v.summary) ORDER BY v.visited_on) FILTER (WHERE v.id IS NOT NULL), '[]'::json))
FROM patients p LEFT JOIN visits v ON v.patient_id = p.id
GROUP BY p.id
ORDER BY p.id;

SELECT COALESCE(state, 'ALL') AS state, SUM(amount) AS total FROM invoices GROUP BY ROLLUP (state) ORDER BY GROUPING(state), state;

SELECT format('%s, %s', last_name, first_name) AS full_name, initcap(city) AS city, left(first_name, 1) AS initial FROM patients WHERE city ILIKE '%o%' ORDER BY full_name;

SELECT to_char(SUM(amount), 'FM999,990.00') AS total FROM invoices WHERE issued_on BETWEEN DATE '2026-01-01' AND DATE '2026-01-31';

INSERT INTO reminders AS r (patient_id, due_on, channel, message)
SELECT i.patient_id, i.due_on - 3, 'sms', format('You owe %s', i.amount - i.paid)
FROM invoices AS i WHERE i.state = 'open'
ON CONFLICT (patient_id, due_on) DO UPDATE SET message = r.message || ' / ' || EXCLUDED.message
RETURNING r.patient_id, r.due_on, r.message;

INSERT INTO patients (first_name, last_name, birth_date, city, registered_on, active) VALUES ('Gil', 'Gaard', '1999-09-09', 'Oslo', CURRENT_DATE, true) RETURNING first_name, city;

INSERT INTO rooms VALUES ('203', 2, 1) ON CONFLICT (number) DO UPDATE SET beds = EXCLUDED.beds RETURNING *;

DELETE FROM reminders r USING patients p WHERE p.id = r.patient_id AND p.active AND r.sent = false RETURNING r.*, p.last_name;

UPDATE appointments a SET status = 'cancelled', reason = concat(a.reason, ' (doctor away)') FROM doctors d WHERE d.id = a.doctor_id AND d.last_name = 'Holm' AND a.starts_at > '2026-03-01' RETURNING a.*;

WITH paid AS (UPDATE invoices SET paid = amount, state = 'paid' WHERE state = 'open' RETURNING patient_id, amount)
SELECT p.last_name, SUM(paid.amount) AS total FROM paid JOIN patients p ON p.id = paid.patient_id GROUP BY p.last_name ORDER BY total DESC;

SELECT p.last_name, count(*) FILTER (WHERE i.state = 'open') AS open, bool_or(i.due_on < '2026-02-10') AS late FROM patients p JOIN invoices i ON i.patient_id = p.id GROUP BY p.last_name ORDER BY p.last_name;

SELECT width_bucket(value, 0, 50, 5) AS bucket, count(*), min(value), max(value) FROM lab_results GROUP BY bucket ORDER BY bucket;

SELECT v.*, v.systolic::text || '/' || v.diastolic::text AS bp FROM visits AS v WHERE v.visited_on >= (SELECT max(visited_on) - interval '30 days' FROM visits) ORDER BY v.id;

SELECT patient_id, array_agg(test ORDER BY taken_at, id) AS tests, jsonb_object_agg(test, value ORDER BY id) AS latest FROM lab_results GROUP BY patient_id ORDER BY patient_id;

SELECT test, round(avg(value), 2) AS mean, round(stddev_samp(value), 2) AS sd FROM lab_results GROUP BY test HAVING count(*) > 1 ORDER BY test;

SELECT "patients".* FROM "public"."patients" WHERE ("patients"."city" = 'Oslo') ORDER BY "patients"."id" ASC LIMIT 2;
""")

WORLD = World(SCHEMA, COLUMNS, ("reminders",), ("patient_balances", "agenda"), BOTH, SQLITE, POSTGRES)
