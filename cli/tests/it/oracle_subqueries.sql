-- Pairs of statements that say the same. DataFusion as it comes does not run the first of most, and answers the others otherwise.
select carrier, exists (select 1 from flights f where f.carrier = a.carrier and f.dest = 'SEA') e from airlines a
select a.carrier, s.c is not null e from airlines a left join (select distinct carrier c from flights where dest = 'SEA') s on a.carrier = s.c
select n, n in (select nullif(length(carrier), 2) from airlines) a, n not in (select length(carrier) from airlines) b, n in (select month from flights where month > 12) c from (values (2), (5), (null)) v(n)
select * from (values (2, null, false, false), (5, null, true, false), (null, null, null, false)) v(n, a, b, c)
select n from (values (2), (5)) v(n) where n not in (select nullif(length(carrier), 2) from airlines) or n > 100
select n from (values (2), (5)) v(n) where n > 100
select x from (values (1), (2)) v(x) where (x in (select y from (values (3), (null)) w(y))) is null order by x
select x from (values (1), (2)) v(x) order by x
select carrier, exists (select max(flight) from flights f where f.carrier = a.carrier and f.month = 13) e, 0 in (select count(*) from flights f where f.carrier = a.carrier and f.month = 13) z from airlines a
select carrier, true e, true z from airlines
select carrier from airlines a where 0 in (select count(*) from flights f where f.carrier = a.carrier and f.month = 13)
select carrier from airlines
select n from (values (1), (2), (3), (null)) v(n) where n = 3 or n not in (select length(carrier) from airlines where n < 2) order by n
select n from (values (1), (2), (3), (null)) v(n) order by n
select count(*) n from airlines a join flights f on a.carrier = f.carrier and (f.flight not in (select dep_time from flights) or f.month = 1)
select count(*) n from flights where month = 1
select count(*) n from planes p where p.year is null or p.seats not in (select q.seats from planes q where q.year < p.year and q.engines = 4)
select count(*) n from planes p left join (select p.tailnum, count(*) c from planes p, planes q where q.year < p.year and q.engines = 4 and q.seats = p.seats group by p.tailnum) s on p.tailnum = s.tailnum where s.c is null
select dest in (select faa from airports where tz = -8) w, count(*) n from flights group by 1 order by w
select a.faa is not null w, count(*) n from flights f left join (select faa from airports where tz = -8) a on f.dest = a.faa group by 1 order by w
select carrier from airlines a order by exists (select 1 from flights f where f.carrier = a.carrier and f.hour = 5) desc, carrier
select carrier from airlines a left join (select distinct carrier c from flights where hour = 5) f on c = carrier order by c is null, carrier
-- A table is not the same table outside.
select carrier, carrier in (select carrier from airlines where name < 'D') w from airlines
select carrier, name < 'D' w from airlines
select carrier from airlines where carrier not in (select carrier from airlines where name < 'D') or carrier = 'UA'
select carrier from airlines where name >= 'D' or carrier = 'UA'
select carrier from airlines where carrier >= all (select carrier from airlines)
select max(carrier) carrier from airlines
select x, y from (values (1, 2), (2, 2)) t(x, y) where exists (select 1 from (select i.a from (values (2, 1)) i(a, b) where i.a = t.y and i.b = t.x) t)
select 1 x, 2 y
-- Columns of one name, and such as have another name around them.
select carrier from airlines a where exists (select * from airlines b, flights f where b.carrier = 'UA' and f.carrier = a.carrier and f.dest = 'SEA')
select distinct carrier from flights where dest = 'SEA'
select carrier from airlines a where exists (select 1 from airlines b join flights f on b.carrier = f.carrier where b.carrier = a.carrier and f.carrier <= a.carrier and f.dest = 'SEA')
select distinct carrier from flights where dest = 'SEA'
select carrier from airlines a where exists (select dest as carrier from flights f where f.carrier = a.carrier and f.dest = 'SEA')
select distinct carrier from flights where dest = 'SEA'
select carrier from airlines a where exists (select 1 from (select dest, hour from flights f where f.carrier = a.carrier) u where u.dest = 'SEA' and u.hour > 5)
select distinct carrier from flights where dest = 'SEA' and hour > 5
select carrier from airlines a where exists (select 1 from (select carrier, dest from flights f where f.carrier = a.carrier) u where u.dest = 'SEA')
select distinct carrier from flights where dest = 'SEA'
select carrier, (select max(u.hour) from (select hour from flights f where f.carrier = a.carrier and f.dest = 'SEA') u) m from airlines a
select a.carrier, m from airlines a left join (select carrier c, max(hour) m from flights where dest = 'SEA' group by carrier) s on s.c = a.carrier
select a.carrier, l.carrier c, l.n from airlines a left join lateral (select f.carrier, count(*) n from airlines b join flights f on b.carrier = f.carrier where f.carrier = a.carrier and f.dest = 'SEA' group by f.carrier) l on true
select a.carrier, s.c, s.n from airlines a left join (select carrier c, count(*) n from flights where dest = 'SEA' group by carrier) s on s.c = a.carrier
-- A day has many times, and a quotient many dividends.
select d, (select count(*) from flights f where cast(f.time_hour as date) = d) n from (values (date '2013-03-05'), (date '2014-03-05')) v(d)
select date '2013-03-05' d, count(*) n from flights where time_hour >= '2013-03-05T00:00:00Z' and time_hour < '2013-03-06T00:00:00Z' union all select date '2014-03-05', 0
select h, (select count(*) from flights f where f.flight / 1000 = h and f.month = 1) n from (values (0), (1), (99)) v(h)
select flight / 1000 h, count(*) n from flights where month = 1 and flight < 2000 group by 1 union all select 99, 0
-- ANY and ALL of rows, of one row, and of none.
select carrier from airlines a where 30 > all (select max(f.hour) from flights f where f.carrier = a.carrier and f.month = 13)
select carrier from airlines where carrier = 'none'
select carrier from airlines a where 5 > all (select f.hour from flights f where f.carrier = a.carrier and f.month = 13)
select carrier from airlines
select carrier, 23 > any (select f.hour from flights f where f.carrier = a.carrier and f.dest = 'SEA') w from airlines a
select a.carrier, coalesce(s.w, false) w from airlines a left join (select carrier, min(hour) < 23 w from flights where dest = 'SEA' group by carrier) s on s.carrier = a.carrier
-- NOT IN knows NULL, whatever is looked for.
select carrier from airlines a where 517 not in (select f.dep_time from flights f where f.carrier = a.carrier and f.month = 1 and f.day = 1)
select carrier from airlines a where not exists (select 1 from flights f where f.carrier = a.carrier and f.month = 1 and f.day = 1 and (f.dep_time is null or f.dep_time = 517))
select carrier from airlines a where not (a.carrier in (select f.origin from flights f where f.carrier = a.carrier and a.name < 'D'))
select carrier from airlines
select carrier from airlines where 2 not in (select nullif(month, 1) from flights where day = 1 and month < 2)
select carrier from airlines where carrier = 'none'
select n from (select count(*) n from flights where month = 1 group by day) t where nullif(n, 842) not in (select count(*) from flights group by carrier)
select count(*) n from flights where month = 1 group by day having count(*) <> 842
select n from (values (2), (null)) v(n) where nullif(n, 3) not in (select month from flights where month > 12)
select * from (values (2), (null)) v(n)
-- HAVING, and the first of some rows.
select carrier, (select max(flight) from flights f where f.carrier = a.carrier having count(*) < 1000) m from airlines a
select a.carrier, m from airlines a left join (select carrier c, max(flight) m from flights group by carrier having count(*) < 1000) s on s.c = a.carrier
select carrier, (select count(*) from flights f where f.carrier = a.carrier and f.month = 13 having max(hour) < 5 or count(*) > 0) m from airlines a
select carrier, cast(null as bigint) m from airlines
select carrier, (select dest from flights f where f.carrier = a.carrier and f.month = 1 order by distance desc, dest, flight limit 1) d from airlines a order by carrier
select a.carrier, d from airlines a left join (select carrier c, dest d, row_number() over (partition by carrier order by distance desc, dest) r from flights where month = 1) s on s.c = a.carrier and r = 1 order by carrier
select carrier from airlines a where exists (select 1 from flights f where f.carrier = a.carrier order by f.flight limit 1) order by carrier
select distinct carrier from flights order by carrier
select carrier from airlines a where exists (select 1 from (select carrier from flights order by carrier desc limit 9) t where t.carrier = a.carrier) order by carrier
select max(carrier) carrier from flights order by carrier
select carrier, (select m + 1 from (select n + 1 m from (select count(*) n from flights f where f.carrier = a.carrier having n < 1000) x) y) m from airlines a
select a.carrier, n + 2 m from airlines a left join (select carrier c, count(*) n from flights group by carrier having count(*) < 1000) s on s.c = a.carrier
select name from airlines a order by (select count(*) from flights f where f.carrier = a.carrier) desc, name
select a.name from airlines a join (select carrier, count(*) n from flights group by carrier) s on s.carrier = a.carrier order by n desc, a.name
select carrier, 0.5 * (select flight from flights f where f.carrier = a.carrier order by flight desc limit 1) m from airlines a order by carrier
select carrier, 0.5 * max(flight) m from flights group by carrier order by carrier
select count(*) n from flights f where cast(f.flight as double) in (select g.flight from flights g where g.flight = f.flight and g.month = 1 and g.day = 1)
select count(*) n from flights where flight in (select flight from flights where month = 1 and day = 1)
-- In conditions of joins, and after LATERAL.
select a.carrier, b.carrier c from airlines a left join airlines b on a.carrier = b.carrier and b.carrier in (select carrier from flights where dest = 'SEA')
select a.carrier, s.carrier c from airlines a left join (select distinct carrier from flights where dest = 'SEA') s on s.carrier = a.carrier
select a.carrier, b.carrier c from airlines a left join airlines b on a.carrier = b.carrier and a.carrier in (select carrier from flights where dest = 'SEA')
select a.carrier, s.carrier c from airlines a left join (select distinct carrier from flights where dest = 'SEA') s on s.carrier = a.carrier
select a.carrier, b.carrier c from airlines a left join airlines b on a.carrier = b.carrier and exists (select 1 from flights f where f.carrier = a.carrier and f.dest = 'SEA')
select a.carrier, s.carrier c from airlines a left join (select distinct carrier from flights where dest = 'SEA') s on s.carrier = a.carrier
select a.carrier from airlines a join airlines b on a.carrier = b.carrier and a.carrier not in (select f.carrier from flights f where f.dest = 'SEA' and f.carrier = b.carrier)
select carrier from airlines where carrier not in (select carrier from flights where dest = 'SEA')
select a.carrier, l.origin from airlines a, lateral (select distinct f.origin from flights f where f.carrier = a.carrier) l
select distinct carrier, origin from flights
-- A value's name is not that of what stands beside it.
select dest, count(*) from flights where hour = 5 group by dest order by (select count(*) from flights f where f.dest = flights.dest and f.day = 1), dest
select g.dest, g.n "count(*)" from (select dest, count(*) n from flights where hour = 5 group by dest) g left join (select dest, count(*) c from flights where day = 1 group by dest) s on g.dest = s.dest order by coalesce(c, 0), g.dest
-- A value is NULL where its subquery has no rows, whatever is true of the rows.
select carrier, coalesce((select count(*) from flights f where f.carrier = a.carrier and f.dest = 'SEA' group by f.carrier), 0) n from airlines a
select a.carrier, coalesce(n, 0) n from airlines a left join (select carrier c, count(*) n from flights where dest = 'SEA' group by carrier) s on a.carrier = c
select carrier, (select 1 from flights f where f.carrier = a.carrier and f.dest = 'SEA' limit 1) is null n from airlines a
select a.carrier, c is null n from airlines a left join (select distinct carrier c from flights where dest = 'SEA') s on a.carrier = c
select carrier, x is null n, x = x e from (select carrier, (select 1 from flights where month = 13 limit 1) x from airlines) q
select carrier, true n, cast(null as boolean) e from airlines
select carrier from airlines where 1 not in (select (select 1 from flights where month = 13))
select carrier from airlines where carrier = ''
select carrier, coalesce((select count(*) from flights having count(*) > 1000000), -1) n from airlines
select carrier, -1 n from airlines
select distinct exists (select 1 from flights f where f.carrier = a.carrier and f.dest = 'SEA') e from airlines a union select false
select e from (values (true), (false)) v(e)
-- What is the same for all rows is not NULL where there are none.
select carrier, (select q.k from (select max(hour) n, 7 k from flights f where f.carrier = a.carrier and f.dest = 'SEA') q) k from airlines a
select carrier, 7 k from airlines
select carrier from airlines a where 1 in (select 1 from (select count(*) n from flights f where f.carrier = a.carrier and f.month = 13) q)
select carrier from airlines
-- Keys after LATERAL, and rows that are counted.
select count(*) n from (select * from flights where day = 1) f join lateral (select hour, temp from weather w where w.origin = f.origin and w.day = f.day) l using (hour)
select count(*) n from flights f join weather w on w.origin = f.origin and w.day = f.day and w.hour = f.hour where f.day = 1
select origin, count(*) n from (select origin from flights where day = 1 except all select origin from flights where day = 1 and hour < 12) s group by origin
select origin, a - b n from (select origin, sum(case when day = 1 then 1 else 0 end) a, sum(case when day = 1 and hour < 12 then 1 else 0 end) b from flights group by origin) s
select origin, count(*) n from (select origin from flights where day = 1 intersect all select origin from flights where day = 2) s group by origin
select origin, case when a < b then a else b end n from (select origin, sum(case when day = 1 then 1 else 0 end) a, sum(case when day = 2 then 1 else 0 end) b from flights group by origin) s
select carrier, (select count(*) is not null from flights f where f.carrier = a.carrier and f.dest = 'SEA') c, (select coalesce(7, max(hour)) from flights f where f.carrier = a.carrier and f.month = 13) k, (select max(hour) from flights f where f.carrier = a.carrier and f.month = 13 order by max(hour)) n from airlines a order by carrier
select carrier, true c, 7 k, cast(null as bigint) n from airlines order by carrier
-- Conditions as SQL groups them, and patterns.
select count(*) n from flights where carrier is distinct from 'UA' and origin = 'JFK' or dest is not distinct from 'SEA' and hour > 20
select count(*) n from flights where (carrier is distinct from 'UA') and origin = 'JFK' or (dest is not distinct from 'SEA') and hour > 20
select carrier from airlines where name similar to '(S|U)%Air_ines Inc.' or name not similar to '%[a-z ]'
select carrier from airlines where name like 'S%Air_ines Inc.' or name like 'U%Air_ines Inc.' or not (right(name, 1) = ' ' or right(name, 1) between 'a' and 'z')
select origin, sum(distance) distance from flights group by origin order by sum(distance) desc
select origin, sum(distance) distance from flights group by origin order by 2 desc
