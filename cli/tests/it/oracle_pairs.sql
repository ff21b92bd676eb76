-- Pairs of statements that say the same. DataFusion as it comes answers the first of most otherwise.
-- What determines one side of a join does not determine the other.
with tot as (select carrier, count(*) total from flights group by carrier) select tot.carrier c, f.origin o, total, count(*) n from tot join flights f on f.carrier = tot.carrier group by tot.carrier, f.origin, total order by c, o
select carrier c, origin o, sum(count(*)) over (partition by carrier) total, count(*) n from flights group by carrier, origin order by c, o
with tot as (select carrier, count(*) total from flights group by carrier), b as (select tot.carrier, f.origin, count(*) n from tot join flights f on f.carrier = tot.carrier group by tot.carrier, f.origin) select a.name from airlines a join b on a.carrier = b.carrier order by name
select name from (select distinct carrier, origin from flights) b join airlines a on a.carrier = b.carrier order by name
with tot as (select carrier, count(*) total from flights group by carrier) select count(*) n from (select k, b, n from (select tot.carrier k, f.origin b, count(*) n from tot join flights f on f.carrier = tot.carrier group by tot.carrier, f.origin) s group by k, b, n) y
select count(*) n from (select distinct carrier, origin from flights) s
with tot as (select carrier, count(*) total from flights group by carrier) select tot.carrier c, count(*) n from tot join flights f on f.carrier = tot.carrier group by tot.carrier order by c
select carrier c, count(*) n from flights group by carrier order by c
with tot as (select carrier, count(*) total from flights group by carrier) select carrier, count(*) n from (select tot.carrier, f.origin, count(*) m from (tot join flights f on f.carrier = tot.carrier) group by tot.carrier, f.origin) s group by carrier
select carrier, count(distinct origin) n from flights group by carrier
select carrier, count(*) n from (select tot.carrier, f.origin, count(*) m from flights f cross join lateral (select carrier, count(*) total from flights group by carrier) tot where f.carrier = tot.carrier group by tot.carrier, f.origin) s group by carrier
select carrier, count(distinct origin) n from flights group by carrier
select distinct c.carrier, f.origin o from (select distinct carrier from airlines) c left join flights f on c.carrier = f.carrier order by carrier, o
select carrier, origin o from flights group by carrier, origin order by carrier, o
-- Nor what determines a row the values in a list of it.
select count(*) n from (select k, e from (select k, unnest(l) e from (select carrier k, array_agg(month) l from flights group by carrier) x) u group by k, e) y
select count(*) n from (select distinct carrier, month from flights) y
select carrier k, unnest([3, 1, 2]) e from airlines group by carrier order by k, e
select carrier k, e from airlines cross join (values (1), (2), (3)) v(e) order by k, e
-- A day has many times, and a quotient many dividends.
select time_hour t, count(*) n from flights where cast(time_hour as date) = date '2013-03-05' group by time_hour order by t
select time_hour t, count(*) n from flights where time_hour >= '2013-03-05T00:00:00Z' and time_hour < '2013-03-06T00:00:00Z' group by time_hour order by t
select flight f, count(*) n from flights where flight / 100 = 1 group by flight order by f
select flight f, count(*) n from flights where flight between 100 and 199 group by flight order by f
select flight f, rank() over (order by flight) r from flights where flight / 100 = 1 and day = 1 order by f, r limit 99
select flight f, rank() over (order by flight) r from flights where flight between 100 and 199 and day = 1 order by f, r limit 99
-- Before the first value a frame has none, and a frame that moves loses some.
select w, count(*) n from (select max(case when month > 3 then month end) over (order by month, day, flight, carrier, dep_time, origin) w from flights where day = 1) s group by w order by w nulls last
select case when month > 3 then month end w, count(*) n from flights where day = 1 group by 1 order by w nulls last
select w, count(*) n from (select count(*) over (partition by month order by flight, carrier, dep_time, origin, tailnum rows between 2 preceding and current row) w from flights where day = 1) s group by w order by w
select w, n from (values (1, 12), (2, 12)) v(w, n) union all select 3, count(*) - 24 from flights where day = 1 order by w
-- The place of a unique column is not unique.
select n, c, rank() over (order by n) r from (select count(*) n, carrier c from (select distinct carrier, month from flights) x group by carrier) t order by n, c
select n, c, min(k) over (partition by n) r from (select n, c, row_number() over (order by n, c) k from (select count(*) n, carrier c from (select distinct carrier, month from flights) x group by carrier) t) s order by n, c
-- Every day has the same times.
select date_part('hour', w) h, count(*) n from (select cast(time_hour as time) w from (select time_hour from flights order by time_hour limit 3000) x) y group by w order by w
select date_part('hour', time_hour) h, count(*) n from (select time_hour from flights order by time_hour limit 3000) x group by 1 order by h
-- Nor has the smallest integer a negative.
select -a b from (select case flight when 1 then -9223372036854775807 - 1 else flight end a from flights where month = 1 and day = 1 and flight < 9 order by a limit 3) x order by b limit 1
select -9223372036854775807 - 1 b order by b
-- No row satisfies this, and none is counted.
select count(*) n from (select n from (select count(*) n from airlines) t where n = 16 and n = 2) s
select count(*) n from airlines where carrier = 'none'
select count(*) n from (select c, n from (select carrier c, count(*) n from airlines group by cube (carrier)) t where c = 'AA' and c = 'UA') s
select count(*) n from airlines where carrier = 'none'
select * from (select 1 k, count(*) n from airlines union all select 2 k, count(*) n from airlines) u where k = 2
select 2 k, count(*) n from airlines
select count(*) n from (select n from (select count(*) n, 1 one from airlines) t where one = 2) s
select count(*) n from airlines where carrier = 'none'
select t.n, u.m from (select count(*) n from airlines) t left join (select count(*) m, 7 k from airlines) u on u.k = 8
select count(*) n, null m from airlines
select count(*) n from (select c, g, n from (select carrier c, 1 g, count(*) n from airlines group by cube(carrier)) t where g = 2) s
select count(*) n from airlines where carrier = 'none'
-- An equality with a column fixes none.
select a, count(*) n from (values (100, 100), (150, 150), (199, 199), (100, 100), (150, 150)) v(a, b) where a / 100 = 1 and a = b group by a order by a desc
select * from (values (199, 1), (150, 2), (100, 2)) v(a, n) order by a desc
-- Columns of one name.
select b.carrier c from (select a.carrier, b.carrier from airlines a join airlines b on a.carrier = b.carrier) order by c
select carrier c from airlines order by c
-- The rows of a group of all.
select count(*) n from airlines where 16 in (select count(*) from airlines having count(*) > 5)
select count(*) n from airlines
-- A run of windows above an aggregate whose key is unique.
select count(*) n, carrier c, max(case when count(*) > 20000 then count(*) end) over (order by carrier) w from flights group by carrier order by w nulls last, c
select a.n, a.c, max(case when b.n > 20000 then b.n end) w from (select carrier c, count(*) n from flights group by carrier) a join (select carrier c, count(*) n from flights group by carrier) b on b.c <= a.c group by a.n, a.c order by w nulls last, a.c
-- Conditions on the side that may be missing, once the sides are swapped; limits above windows over groups.
select count(*) n from (select carrier from flights where month = 1 and day = 1 and hour = 5) f right join airlines a on a.carrier = f.carrier where f.carrier is null
select count(*) n from airlines where carrier not in (select carrier from flights where month = 1 and day = 1 and hour = 5)
select count(*) n from (select * from flights where day = 28) a right join (select * from weather where day = 15) b on a.origin = b.origin and a.day = b.day where a.day is null
select count(*) n from weather where day = 15
select count(*) n from (values ('UA'), ('AA')) f(carrier) right join airlines a on a.carrier = f.carrier where f.carrier is null
select count(*) - 2 n from airlines
select day, rank() over (order by day desc) r from (select distinct day from flights) order by day limit 3
select day, 32 - day r from flights group by day order by day limit 3
select carrier, max(dep_delay) m, count(*) over () c from flights group by carrier order by m desc nulls last, carrier limit 3
select carrier, m, c from (select carrier, max(dep_delay) m from flights group by carrier) s cross join (select count(distinct carrier) c from flights) t order by m desc nulls last, carrier limit 3
select carrier, count(*) over () c from flights group by carrier order by max(dep_delay) desc nulls last limit 1
select carrier, 16 c from flights order by dep_delay desc nulls last limit 1
-- Numbers without a sign have differences with one.
select d, count(*) n from (select row_number() over (order by carrier desc) - row_number() over (order by carrier) d from airlines) s group by d order by d
select 2 * column1 - 15 - column2 d, 1 n from (values (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0), (11, 0), (12, 0), (13, 0), (14, 0), (15, 0)) v cross join (select 1 from airlines limit 1) o order by d
