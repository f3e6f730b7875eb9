-- The list of leads, put together from these blocks: `:conditions` becomes the `where_` and `after_` blocks that apply, `:sort` one of
-- the `sort_` blocks, `:way` ASC or DESC, and each `$?` the number of its parameter. Nothing from outside is ever put into the text.

-- name: list_leads
WITH page AS MATERIALIZED (
    SELECT leads.id, :sort AS sort_value, row_to_json(shown) AS item
    FROM leads, LATERAL (
        SELECT
            leads.id, leads.email, leads.phone, leads.first_name, leads.last_name, leads.company, leads.title, leads.source,
            leads.stage, leads.score, leads.owner_id, leads.tags, leads.custom, leads.consent, leads.external_ids,
            leads.version,
            to_char(leads.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS created_at,
            to_char(leads.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS updated_at
    ) AS shown
    WHERE leads.workspace_id = $1 AND leads.deleted_at IS NULL :conditions
    ORDER BY :sort :way, leads.id :way
    LIMIT $2 + 1
), numbered AS (
    SELECT id, sort_value, item, row_number() OVER (ORDER BY sort_value :way, id :way) AS number FROM page
)
SELECT
    coalesce(json_agg(item ORDER BY number) FILTER (WHERE number <= $2), '[]')::text AS items,
    count(*) > $2 AS has_more,
    max(sort_value) FILTER (WHERE number = $2) AS last_value,
    max(id) FILTER (WHERE number = $2) AS last_id
FROM numbered;

-- name: sort_created_at
leads.created_at;
-- name: sort_updated_at
leads.updated_at;
-- name: sort_score
leads.score;
-- name: sort_last_name
lower(coalesce(leads.last_name, '')) COLLATE "C";

-- name: after_asc
AND (:sort, leads.id) > ($?, $?);
-- name: after_desc
AND (:sort, leads.id) < ($?, $?);

-- name: where_stage
AND leads.stage = ANY ($?::text[]);
-- name: where_source
AND leads.source = ANY ($?::text[]);
-- name: where_owner_id
AND leads.owner_id = ANY ($?::text[]);
-- name: where_unowned
AND leads.owner_id IS NULL;
-- name: where_tag
AND leads.tags @> $?::jsonb;
-- name: where_word
AND lead_search_text(leads.first_name, leads.last_name, leads.email, leads.phone, leads.company) ILIKE $?;
-- name: where_email
-- The second condition is implied by the first; the index answers it.
AND lower(leads.email) = $?
AND lead_search_text(leads.first_name, leads.last_name, leads.email, leads.phone, leads.company) ILIKE $?;
-- name: where_phone
AND leads.phone = $?
AND lead_search_text(leads.first_name, leads.last_name, leads.email, leads.phone, leads.company) ILIKE $?;
-- name: where_company
AND lower(leads.company) = lower($?)
AND lead_search_text(leads.first_name, leads.last_name, leads.email, leads.phone, leads.company) ILIKE $?;
-- name: where_score_min
AND leads.score >= $?;
-- name: where_score_max
AND leads.score <= $?;
-- name: where_created_after
AND leads.created_at >= $?;
-- name: where_created_before
AND leads.created_at < $?;
-- name: where_updated_after
AND leads.updated_at >= $?;
-- name: where_updated_before
AND leads.updated_at < $?;
