-- The lead as the last call took it along, committed before the call like its version and its record. If the call's outcome
-- stays unknown, this says what the record may have been given, whatever the lead has become meanwhile.
ALTER TABLE sync_states ADD COLUMN in_flight_lead jsonb;
