-- One statement a line: cli/tests/it/oracle.rs runs each on a network and in one process, which must agree.
select carrier, origin, count(*) from flights group by grouping sets ((carrier),(origin),()) order by 1,2,3
select carrier, origin, count(*) n from flights group by cube(carrier, origin) order by 1,2,3
select carrier, origin, count(*) n from flights group by rollup(carrier, origin) order by 1,2,3
select origin from flights intersect select faa from airports order by 1
select dest from flights except select faa from airports order by 1
select dest from flights except all select faa from airports order by 1 limit 20
select distinct on (carrier) carrier, flight from flights order by carrier, flight
select count(*) from flights f full join planes p on f.tailnum = p.tailnum
select count(*) n, count(p.tailnum) m, count(f.tailnum) k from planes p full join flights f on f.tailnum = p.tailnum
select count(*) n, count(p.tailnum) m from flights f left join planes p on f.tailnum = p.tailnum and p.year > 2000
select count(*) from planes p where not exists (select 1 from flights f where f.tailnum = p.tailnum and f.month = 7)
select count(*) from planes p where p.tailnum not in (select tailnum from flights where tailnum is not null)
select count(*) from planes p where p.tailnum not in (select tailnum from flights)
select count(*) from flights f where exists (select 1 from planes p where p.tailnum=f.tailnum and p.seats > f.hour * 20)
select count(*) from planes p where exists (select 1 from flights f where p.tailnum=f.tailnum and p.seats > f.hour * 20)
select p.manufacturer, (select count(*) from flights f where f.tailnum = p.tailnum) n from planes p order by 2 desc, 1 limit 10
select carrier, (select max(name) from airlines a where a.carrier = f.carrier) m, count(*) from flights f group by 1 order by 1
select a.carrier, b.carrier from airlines a, airlines b where a.carrier < b.carrier order by 1,2
select count(*) from airlines a cross join airports b cross join (select distinct origin from flights) c
select carrier, rank() over (order by n desc) r from (select carrier, count(*) n from flights group by carrier) order by 2,1
select origin, month, sum(n) over (partition by origin order by month) s from (select origin, month, count(*) n from flights group by 1,2) order by 1,2
select carrier, n, lag(n) over (order by carrier) l, first_value(n) over (order by carrier) fv from (select carrier, count(*) n from flights group by 1) order by 1
select month, ntile(4) over (order by month) q from (select distinct month from flights) order by 1
select count(*) from (select * from flights limit 1000)
select count(*) from (select * from flights where dep_delay > 60 limit 5000 offset 100)
select carrier from flights group by carrier having count(*) > 10000 order by 1
select stddev(dep_delay), var_pop(arr_delay), corr(dep_delay, arr_delay), covar_samp(dep_delay, arr_delay) from flights
select regr_slope(arr_delay, dep_delay), regr_r2(arr_delay, dep_delay) from flights
select bool_and(dep_delay > -100), bool_or(dep_delay > 1000), bit_xor(flight) from flights
select count(distinct tailnum), count(distinct dest), sum(distinct month) from flights
select carrier, count(distinct dest) filter (where month = 1) d, avg(distance) filter (where month > 6) a from flights group by 1 order by 1
select string_agg(carrier, ',' order by carrier) from airlines
select array_agg(name order by carrier) from airlines
select min(time_hour), max(time_hour), min(tailnum), max(tailnum) from flights
with recursive t(n) as (select 1 union all select n+1 from t where n < 5) select * from t order by 1
with x as (select origin, avg(dep_delay) d from flights group by 1) select f.carrier, count(*) from flights f join x on f.origin = x.origin and f.dep_delay > x.d group by 1 order by 1
select f.carrier, count(*) from flights f join weather w on f.origin = w.origin and f.time_hour = w.time_hour where w.wind_speed > 20 group by 1 order by 1
select count(*) from flights f join weather w on f.origin = w.origin and f.time_hour between w.time_hour and w.time_hour where w.temp > 90
select a.name, x.c from airlines a left join (select carrier, count(*) c from flights where month = 2 and day = 29 group by 1) x on a.carrier = x.carrier order by 1
select * from (select 'a' k, count(*) n from flights union all select 'b', count(*) from planes union select 'c', count(*) from weather) order by 1
select case when dep_delay > 0 then 'late' when dep_delay is null then 'none' else 'ok' end s, count(*) from flights group by 1 order by 1
select date_trunc('month', time_hour) m, count(*) from flights group by 1 order by 1
select substr(dest,1,1) c, count(*) from flights where dest like '%A' group by 1 order by 1
select carrier, flight, dep_delay from flights order by dep_delay desc nulls last, carrier, flight limit 20 offset 5
select count(*) from flights where tailnum is null or arr_delay is null
select avg(dep_delay), sum(air_time * distance) from flights where month in (1,2,3) and origin <> 'JFK'
select a.carrier, count(*) from airlines a right join flights f on a.carrier = f.carrier and a.name like '%A%' group by 1 order by 1
select count(*) from flights f left anti join planes p on f.tailnum = p.tailnum
select count(*) from flights f left semi join planes p on f.tailnum = p.tailnum
select count(*) from planes p left anti join flights f on f.tailnum = p.tailnum
select count(*) from planes p left semi join flights f on f.tailnum = p.tailnum
select count(*) from planes p full join flights f on p.tailnum=f.tailnum and p.seats > f.distance
select count(*) from planes p left join flights f on p.tailnum=f.tailnum and p.seats > f.distance
select count(*), count(a.carrier), count(f.flight) from flights f full join airlines a on f.flight between length(a.name)*300 and length(a.name)*300+1
select p.type, count(*) from planes p where p.seats > all (select 100 from airlines) group by 1 order by 1
select p.manufacturer from planes p where p.seats > any (select distance from flights where distance < 120) group by 1 order by 1 limit 5
select unnest([1,2,3]) u, carrier from airlines order by 2,1
select origin, dest, count(*) n from flights group by 1,2 order by 3 desc, 1, 2 limit 5
select x.n, count(*) from (select tailnum, count(*) n from flights group by 1) x group by 1 order by 2 desc, 1 limit 10
select a.faa from airports a where a.lat > (select max(lat) from airports b where b.faa in (select dest from flights)) order by 1
select nth_value(carrier, 2) over (order by carrier) from airlines limit 3
select month, carrier, n, sum(n) filter (where carrier > 'M') over (partition by month) s from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select month, carrier, n, count(*) filter (where n > 1000) over (order by month, carrier rows 5 preceding) c from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select month, carrier, avg(n) filter (where n > 500) over (partition by carrier order by month) a, min(n) filter (where month <> 2) over (partition by carrier) m from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select month, carrier, count(distinct n % 7) over (partition by month) d from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select month, carrier, first_value(d) over (partition by carrier order by month) f, lag(d) respect nulls over (partition by carrier order by month) l from (select month, carrier, case when min(dep_delay) > -20 then 1 end d from flights group by 1, 2) order by 1, 2
select month, carrier, first_value(n) over (order by month, carrier) a, first_value(n) over (order by month desc, carrier desc) b, last_value(n) over (order by month desc, carrier desc) c from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select month, carrier, row_number() over (order by month, carrier) a, row_number() over (order by month desc, carrier desc) b, rank() over (order by month desc, carrier desc) c from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select month, carrier, sum(n) over (order by month, carrier) a, sum(n) over (order by month desc, carrier desc) b, count(*) over (order by month desc, carrier desc rows 3 preceding) c from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select month, carrier, lag(n, 2, -1) over (order by month, carrier) a, lead(n) over (order by month, carrier) b, nth_value(n, 3) over (order by month, carrier) c from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select carrier, count(*) from flights group by grouping sets ((), (carrier)) order by 1
select month, carrier, lag(d) ignore nulls over (partition by carrier order by month) a, lead(d, 2, -5) ignore nulls over (partition by carrier order by month) b, first_value(d) ignore nulls over (partition by carrier order by month) c, last_value(d) ignore nulls over (partition by carrier order by month) e, nth_value(d, 2) ignore nulls over (partition by carrier order by month) f from (select month, carrier, case when min(dep_delay) > -20 then min(dep_delay) end d from flights group by 1, 2) order by 1, 2
select month, carrier, lag(n) over (order by month, carrier) a, lag(n, 2, -1) over (order by month desc, carrier desc) b, lead(n) over (order by month desc, carrier desc) c, nth_value(n, 3) over (order by month desc, carrier desc rows between unbounded preceding and unbounded following) e from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select month, carrier, lag(d) over (order by month, carrier) a, lag(d) ignore nulls over (order by month desc, carrier desc) b, last_value(d) ignore nulls over (order by month desc, carrier desc) c, nth_value(d, 2) ignore nulls over (order by month desc, carrier desc) e from (select month, carrier, case when min(dep_delay) > -20 then min(dep_delay) end d from flights group by 1, 2) order by 1, 2
select month, carrier, array_agg(n) filter (where carrier > 'M') over (partition by month order by carrier) a, array_agg(carrier) filter (where n > 500) over (partition by month order by carrier rows 3 preceding) b, array_agg(n) filter (where null) over () c from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select month, carrier, median(n) filter (where n > 200) over (partition by month) a, avg(n + 0.5e0) filter (where carrier <> 'UA') over (partition by month order by carrier rows 2 preceding) b, count(distinct n % 7) filter (where n > 30) over (partition by month) c, string_agg(carrier, ',') filter (where n > 900) over (partition by month order by carrier) d from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select month, carrier, n, sum(n) over (partition by month) s, count(*) over (order by month, carrier rows 5 preceding) c from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select month, r, count(*) over (partition by month) c from (select month, row_number() over (order by month, carrier) r from (select month, carrier, count(*) n from flights group by 1, 2)) order by 1, 2
select carrier, count(*) from flights group by 1 order by 1 limit 9223372036854775807 offset 10
select count(*) from (select * from flights limit 4294967297)
select carrier, count(*) from flights group by 1 order by 1 offset 4294967297
select count(*) from (select month from flights where month > 6 order by month, day limit 4294967296)
select count(*), sum(month) from flights group by grouping sets (())
select count(*), max(month) from flights where month > 12 group by grouping sets (())
select max(month) from flights group by grouping sets ((), ())
select carrier, count(*) n from flights group by 1 order by count(*) % (select min(month) + 6 from flights), 1
select a.carrier, f.month, count(*) from airlines a join flights f on a.carrier = f.carrier and f.month > (select max(month) - 2 from flights) group by 1, 2 order by 1, 2
select a.carrier, count(f.day) from airlines a left join flights f on a.carrier = f.carrier and f.month > (select avg(month) + 4 from flights where month < 0) group by 1 order by 1
select sum(month + (select max(day) from flights)), count(*) filter (where day > (select avg(day) from flights)) from flights
select (select min(carrier) from airlines) k, max(month) from flights group by k
select month, carrier, sum(n + (select count(*) from airlines)) over (partition by month order by carrier) s from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select carrier from airlines where name > (select name from airlines where carrier = 'DL') order by 1
select count(*), (select name from airlines where carrier = 'no such') from flights
select month, carrier from flights where day > 30 union all by name select carrier, name z from airlines order by 1, 2, 3
select carrier from airlines where arrow_cast(length(name), 'Float16') in (arrow_cast(17.0, 'Float16'), arrow_cast(20.0, 'Float16')) order by 1
select month, carrier, sum(n) over (order by n range between 30 preceding and 10 preceding) s from (select month, carrier, count(*) n from flights group by 1, 2) order by 1, 2
select distinct on (carrier) carrier, (select max(month) from flights) m, day from flights order by carrier, day desc
select carrier, month, sum(day + (select max(day) from flights)) from flights group by rollup(carrier, month) order by 1, 2
select carrier, (select max(month) from flights f where f.carrier = a.carrier) m from airlines a order by (select max(month) from flights f where f.carrier = a.carrier), 1
select carrier c from airlines intersect select carrier from airlines order by 1
select a.carrier c from airlines a left join airlines b on a.carrier = b.carrier order by 1
select a.carrier c, b.carrier d from airlines a full join airlines b on a.carrier = b.carrier order by c, d
select count(*) from airlines a left join airlines b on a.carrier = b.carrier
select a.carrier from airlines a where not exists (select 1 from airlines b where a.carrier = b.carrier and b.name > a.name) order by 1
select v.n, a.name from (values ('AA'), ('zz')) v(n) left join airlines a on a.carrier = v.n order by 1
select * from (values ('AA'), ('zz')) v(n) where n in (select carrier from airlines) order by 1
select p.manufacturer, count(*) from planes p where p.tailnum in (select tailnum from planes where seats > 200) group by 1 order by 1
select tailnum from planes where engines = 4 or tailnum in (select tailnum from planes where seats > 300) order by 1 limit 20
select carrier, rank() over (order by carrier) from (select a.carrier c1, b.carrier from airlines a full join airlines b on a.carrier = b.carrier)
select * from (select max(flight) m from flights) a full join (select count(*) n from planes) b on a.m = b.n order by 1
select count(*) from (select count(*) n from flights) a full join (select count(*) n from planes) b on a.n = b.n
select carrier from airlines intersect select carrier from airlines union all select 'x' order by 1
select x.carrier from (select a.carrier from airlines a left join airlines b on a.carrier = b.carrier) x cross join (select max(flight) from flights) y order by 1
select a.carrier, b.name from airlines a left join (select * from airlines where name like 'A%') b on a.carrier = b.carrier where a.carrier > 'D' order by 1 limit 5 offset 1
select x.c, y.carrier from (select carrier c from airlines intersect select carrier from airlines) x join airlines y on x.c < y.carrier order by 1, 2
select a.carrier, count(f.n) from airlines a left join (select carrier, count(*) n from flights group by 1) f on a.carrier = f.carrier group by 1 order by 1
select month, carrier, rank() over (partition by month order by carrier) r from (select month, carrier, count(*) n from flights group by 1, 2) where month = 2 order by 2
select month, carrier, row_number() over (partition by carrier, month order by n) r from (select month, carrier, count(*) n from flights group by 1, 2) where month = 2 order by 2
select carrier, max(n) over (partition by month) r from (select month, carrier, count(*) n from flights group by 1, 2) where month = 2 order by 1
select distinct carrier, s from (select carrier, count(*) over (partition by carrier) s from airlines where carrier = 'B6')
select month, carrier, row_number() over (partition by carrier order by month) r from (select month, carrier, count(*) n from flights group by 1, 2) where carrier = 'AA' order by 1
select name c, rank() over (partition by name order by name) e from airlines where name = 'Delta Air Lines Inc.'
select distinct month, max(dep_delay) over (partition by month) r from flights where month = 2
select a.month, b.name, sum(a.n) over (partition by a.carrier order by a.month) x, count(*) over (partition by b.carrier order by a.month) r from (select month, carrier, count(*) n from flights group by 1, 2) a join airlines b on a.carrier = b.carrier order by 2, 1
select x.carrier, sum(x.n) over (partition by x.carrier order by y.carrier, x.month) s from (select month, carrier, count(*) n from flights group by 1, 2) x join airlines y on x.carrier = y.carrier order by 1, 2
select month, sum(n) over (partition by k, k2 order by month) s from (select month, count(*) n, carrier k, carrier k2 from flights group by 1, 3) order by 1, 2
select x.month, x.carrier, row_number() over (partition by y.carrier, x.month order by x.n) a, count(*) over (partition by x.carrier, y.month) b from (select month, carrier, count(*) n from flights group by 1, 2) x join (select month, carrier, count(*) n from flights group by 1, 2) y on x.carrier = y.carrier and x.month = y.month order by 1, 2
select distinct x from (select sum(a) over (partition by a order by t) x, row_number() over (partition by b order by t) r from (select tailnum t, count(*) a, count(*) b from flights group by 1)) where r < 3 order by 1 limit 50
select f.month, count(*) from flights f left semi join (select c from (select carrier c, sum(l) s from (select b.carrier, b.name, min(length(b.carrier)) over (partition by b.carrier) l from airlines b where b.carrier = 'B6') group by carrier, name) where s = 2) s on f.carrier = s.c group by 1 order by 1
select c, count(*) from (select r.dest c, p.tailnum d from (select * from flights where month = 1) r right join planes p on r.tailnum = p.tailnum and p.seats is null where not exists (select 1 from flights s where s.hour = r.hour and s.day < r.day) except all select origin, tailnum from (select distinct on (origin) origin, tailnum from flights order by origin, tailnum, flight) x) group by c order by 1
select count(*) from (select carrier from flights limit 5) p join airlines a on p.carrier = a.carrier
select count(*) from airlines where 1 = (select 1 from flights limit 1)
select count(*) from flights where 1 = (select 1 from flights limit 1)
select count(*) from (select 1 k from flights limit 5) x where k not in (select length(carrier) from airlines)
select count(*) from (select length(carrier) k from flights limit 5) x where k not in (select month + 2 from flights)
select count(*) from (select carrier from flights limit 5) p left join airlines a on p.carrier = a.carrier
select max(b.name) over (partition by l.carrier) from (select * from airlines where carrier = 'AA') l join airlines b on length(l.name) = length(b.name)
select l.carrier, count(*) over (partition by l.carrier order by b.name) from (select * from airlines where carrier = 'AA') l join airlines b on length(l.name) < length(b.name) + 4 order by 2
select a.carrier, (select count(*) from flights f where f.carrier = a.carrier and month = 2 group by f.carrier) n from airlines a order by 1
select carrier, month, count(*) n from (select carrier, month from flights order by carrier, month limit 100000) s group by rollup (carrier, month) order by carrier nulls last, month nulls last
select carrier, count(*) n from (select carrier from flights order by carrier limit 100000) s group by grouping sets ((carrier), ()) order by carrier
select 1 + 2 x, carrier c, count(*) n from airlines group by grouping sets ((1 + 2), (carrier), ()) order by x, c
select x, count(*) over (partition by x order by y) n from (select b.x, a.carrier y from airlines a left join (select carrier, 3 x from airlines where carrier > 'M') b on a.carrier = b.carrier) s order by x, n
select b.x, b.y, count(*) n from airlines a left join (select p.carrier, p.carrier x, q.carrier y from airlines p join airlines q on p.carrier = q.carrier where p.carrier > 'M') b on a.carrier = b.carrier group by cube (b.x, b.y) order by x, y, n
