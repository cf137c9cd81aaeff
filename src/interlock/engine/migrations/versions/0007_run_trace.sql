-- The W3C traceparent under which a Run was asked for; its children belong below it.
alter table run add column traceparent text;
