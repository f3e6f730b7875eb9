-- A repetition of a call sends the same bytes as the first: jsonb would give its keys another order and its numbers another form.
ALTER TABLE run_steps ALTER COLUMN input TYPE json USING input::text::json;
