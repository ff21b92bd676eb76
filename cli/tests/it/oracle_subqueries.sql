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
