-- Map: cut lines into words. Reduce: count.
select word, count(*) as n
from (
    select unnest(string_to_array(trim(regexp_replace(lower(text), '[^a-z]+', ' ', 'g')), ' ')) as word
    from lines
) w
where word <> ''
group by word
order by n desc, word;
