-- The vendor's account that the connection's records are in, once it was seen. Record ids mean something in that account only.
ALTER TABLE connections ADD COLUMN account_id text;

CREATE OR REPLACE VIEW live_connections AS
SELECT workspace_id, id, name, vendor, mode, on_delete, settings, time_zone, status, status_reason,
       trouble_kind, trouble_reason, trouble_count, paused_until,
       coalesce(paused_until > now(), false) AS is_resting,
       credentials AS sealed, credentials_set_at, token_expires_at,
       extract(epoch FROM token_expires_at - now())::float8 AS token_seconds_left,
       mapping, mapping_version, prepared_at, backfill_after IS NOT NULL AS is_backfilling,
       version, created_at, updated_at, account_id
FROM connections WHERE deleted_at IS NULL;
