-- Map: each word of a line with its place. Reduce: the sorted places of each word that stands in two lines or more.
select word, count(*) as places, string_agg(doc || ':' || cast(line as varchar), ' ' order by doc, line) as postings
from (
    select distinct word, doc, line
    from (
        select doc, line,
            unnest(string_to_array(trim(regexp_replace(lower(text), '[^a-z]+', ' ', 'g')), ' ')) as word
        from lines
    ) w
    where word <> ''
) d
group by word
having count(*) >= 2
order by word;
