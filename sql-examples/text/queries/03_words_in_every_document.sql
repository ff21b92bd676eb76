-- A join of two reductions: words that no document lacks.
with words as (
    select doc, unnest(string_to_array(trim(regexp_replace(lower(text), '[^a-z]+', ' ', 'g')), ' ')) as word
    from lines
)
select w.word, w.n
from (select word, count(*) as n, count(distinct doc) as docs from words where word <> '' group by word) w
join (select count(distinct doc) as docs from lines) d on w.docs = d.docs
order by w.word;
