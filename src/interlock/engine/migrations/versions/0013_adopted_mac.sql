-- HMAC-SHA256 (hex) of the row under a key that the database does not know. A row without one counts for nothing: whoever
-- may write here could have made it, with a Run and evidence that fit.
alter table adopted add column mac text;
