"""Asks PostgreSQL's catalogue what the names of a statement stand for, and what a table brings along."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

from interlock.adapters.sql_connections import Connection
from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.databases import (
    CatalogFacts,
    Column,
    ForeignName,
    RelationFacts,
    StatementShape,
    TableFacts,
)
from interlock.core.errors import Invalid, NotFound

RELATIONS_MAX = 500

_FOREIGN = frozenset({"function", "attribute", "cast", "view function", "operator", "type"})

# Relations by name, and from there: what a view reads, the parts of a whole, the whole of a part. Who came up from a
# part does not go down to its siblings.
_REACH = """
with recursive asked as (
    select schema, name,
        pg_catalog.to_regclass(coalesce(pg_catalog.quote_ident(schema) || '.', '') || pg_catalog.quote_ident(name))::oid
            as oid
    from unnest($1::text[], $2::text[]) as a(schema, name)
), reach(oid, through) as (
    select oid, 'named' from asked where oid is not null
    union
    select next.oid, next.through from reach r cross join lateral (
        select d.refobjid, 'view' from pg_catalog.pg_rewrite w
            join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = w.oid
                and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> r.oid
            where w.ev_class = r.oid and r.through <> 'whole'
        union all
        select inhrelid, 'part' from pg_catalog.pg_inherits where inhparent = r.oid and r.through <> 'whole'
        union all
        select inhparent, 'whole' from pg_catalog.pg_inherits where inhrelid = r.oid
    ) next(oid, through) where r.oid >= 16384
)"""
# `offset 0` keeps a few rows from being joined with the whole catalogue, whose size is then of no matter: what is known
# of one relation is looked up by its index.
_RELATIONS = """
select 'relation', n.nspname, c.relname, c.relkind::text, r.through, c.oid::int8 from reach r
    cross join lateral (select oid, relname, relkind, relnamespace from pg_catalog.pg_class
        where oid = r.oid offset 0) c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
union all
select 'unknown', schema, name, null, null, null from asked where oid is null
union all
select kind, n.nspname, p.proname, p.provolatile::text, (
    select e.extname from pg_catalog.pg_depend d join pg_catalog.pg_extension e on e.oid = d.refobjid
    where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'), null
    from ({called}
        select 'cast', k.castfunc from pg_catalog.pg_cast k where k.castfunc >= 16384 and k.castsource in (
            select a.atttypid from pg_catalog.pg_attribute a join reach r on r.oid = a.attrelid where a.attnum > 0)
        union
        select 'view function', d.refobjid from reach r
            cross join lateral (select oid from pg_catalog.pg_rewrite where ev_class = r.oid offset 0) w
            cross join lateral (select refobjid from pg_catalog.pg_depend
                where classid = 'pg_catalog.pg_rewrite'::regclass and objid = w.oid
                    and refclassid = 'pg_catalog.pg_proc'::regclass offset 0) d
            where r.oid >= 16384
    ) f(kind, oid)
    cross join lateral (select oid, proname, provolatile, pronamespace from pg_catalog.pg_proc
        where oid = f.oid offset 0) p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace where n.nspname <> 'pg_catalog'
"""
_FUNCTIONS = """
        select 'function' as kind, p.oid from pg_catalog.pg_proc p
            join pg_catalog.pg_namespace n on n.oid = p.pronamespace
            join unnest({function_schemas}::text[], {functions}::text[]) as f(schema, name) on f.name = p.proname
                and (n.nspname = f.schema or f.schema is null and n.nspname = any({path}::text[]))
        union"""
_ATTRIBUTES = """
        select 'attribute', p.oid from pg_catalog.pg_proc p
            join pg_catalog.pg_namespace n on n.oid = p.pronamespace
            join pg_catalog.pg_type t on t.oid = p.proargtypes[0]
            where p.proname = any({attributes}::text[]) and n.nspname = any({path}::text[]) and t.typtype in ('c', 'p')
        union"""
_OPERATORS = """
union all
select 'operator', n.nspname, o.oprname, '', (
    select e.extname from pg_catalog.pg_depend d join pg_catalog.pg_extension e on e.oid = d.refobjid
    where d.classid = 'pg_catalog.pg_operator'::regclass and d.objid = o.oid and d.deptype = 'e'), null
    from pg_catalog.pg_operator o join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
    where o.oprname = any({operators}::text[]) and n.nspname = any({path}::text[])
"""
_TYPES = """
union all
select 'type', n.nspname, t.typname, t.typtype::text, (
    select e.extname from pg_catalog.pg_depend d join pg_catalog.pg_extension e on e.oid = d.refobjid
    where d.classid = 'pg_catalog.pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'), null
    from unnest({type_schemas}::text[], {types}::text[]) as a(schema, name)
    join pg_catalog.pg_type t on t.oid = pg_catalog.to_regtype(
        coalesce(pg_catalog.quote_ident(schema) || '.', '') || pg_catalog.quote_ident(name))::oid
    join pg_catalog.pg_namespace n on n.oid = t.typnamespace where n.nspname <> 'pg_catalog'
union all
select 'unknown type', schema, name, null, null, null
    from unnest({type_schemas}::text[], {types}::text[]) as a(schema, name)
    where pg_catalog.to_regtype(
        coalesce(pg_catalog.quote_ident(schema) || '.', '') || pg_catalog.quote_ident(name)) is null
"""
_OWN_FUNCTIONS = """
select proname, bool_or(provolatile = 'v' or prokind = 'p'), bool_or(exists (
    select from pg_catalog.pg_type t where t.oid = any(array_append(p.proargtypes::oid[], p.prorettype))
        and t.typname in ('cstring', 'internal', 'trigger', 'event_trigger', 'language_handler', 'fdw_handler',
                          'index_am_handler', 'tsm_handler', 'table_am_handler', 'pg_ddl_command')))
from pg_catalog.pg_proc p where pronamespace = 'pg_catalog'::regnamespace group by proname
"""
_COLUMNS = """
select a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attgenerated <> '',
    pg_catalog.pg_get_expr(d.adbin, d.adrelid),
    coalesce(a.attnum = any(i.indkey), false), coalesce(array_position(i.indkey::int2[], a.attnum), 0)
from pg_catalog.pg_attribute a
    left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    left join pg_catalog.pg_index i on i.indrelid = a.attrelid and i.indisprimary
where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped order by a.attnum
"""
_FOLLOWERS = """
with recursive follows(oid) as (
    select $1::oid
    union
    select c.conrelid from follows f join pg_catalog.pg_constraint c on c.confrelid = f.oid and c.contype = 'f'
        and (case when $2::bool then c.confdeltype else c.confupdtype end) in ('c', 'n', 'd')
)
select n.nspname, c.relname, c.relkind::text, c.oid::int8 from follows f join pg_catalog.pg_class c on c.oid = f.oid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid <> $1::oid order by 1, 2
"""
_REFERENCED = """
select distinct a.attname from pg_catalog.pg_constraint c
    join pg_catalog.pg_attribute a on a.attrelid = c.confrelid and a.attnum = any(c.confkey)
where c.confrelid = $1::oid and c.contype = 'f' order by 1
"""
_CODE = """
with touched as (select unnest($1::oid[]) as oid), run as (
    select t.tgfoid as oid, 'the trigger ' || t.tgname as what from pg_catalog.pg_trigger t
        join touched on touched.oid = t.tgrelid where not t.tgisinternal and t.tgenabled <> 'D'
    union all
    select d.refobjid, 'a default, check, policy or index' from (
        select 'pg_catalog.pg_attrdef'::regclass as class, a.oid from pg_catalog.pg_attrdef a
            join touched on touched.oid = a.adrelid
        union all select 'pg_catalog.pg_constraint'::regclass, c.oid from pg_catalog.pg_constraint c
            join touched on touched.oid = c.conrelid where c.contype = 'c'
        union all select 'pg_catalog.pg_class'::regclass, i.indexrelid from pg_catalog.pg_index i
            join touched on touched.oid = i.indrelid
        union all select 'pg_catalog.pg_policy'::regclass, p.oid from pg_catalog.pg_policy p
            join touched on touched.oid = p.polrelid
    ) o join pg_catalog.pg_depend d on d.classid = o.class and d.objid = o.oid
        and d.refclassid = 'pg_catalog.pg_proc'::regclass
)
select run.what || ' runs ' || n.nspname || '.' || p.proname, n.nspname || '.' || p.proname from run
    join pg_catalog.pg_proc p on p.oid = run.oid join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname <> 'pg_catalog'
union
select 'the rule ' || w.rulename, null from pg_catalog.pg_rewrite w join touched on touched.oid = w.ev_class
    where w.rulename <> '_RETURN'
order by 1
"""
_EVERYTHING = """
select n.nspname, c.relname, c.relkind::text, c.oid::int8 from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.oid >= 16384 and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and ($1::text[] is null or n.nspname = any($1::text[]))
order by 1, 2 limit 501
"""


class Catalogue:
    """Knows PostgreSQL's own functions by server version, and asks everything else anew."""

    def __init__(self) -> None:
        self._functions: dict[int, dict[str, str]] = {}
        self._lock = threading.Lock()

    def names(
        self,
        connection: Connection,
        declaration: DatabaseDeclaration,
        shape: StatementShape,
        *,
        begin: str | None = None,
    ) -> CatalogFacts:
        """What the names of a statement stand for. `begin` starts a transaction first, on the same way to the server.

        Raises: Invalid when it reaches more than a plan can show.
        """
        query, values = _question(shape, declaration.schemas)
        own = self._own_functions(connection)
        with connection.pipeline():
            if begin is not None:
                connection.execute(begin.encode())
            asked = connection.execute(query, values, prepare=True)  # it takes longer to plan than to run
        rows = asked.fetchall()
        known = {name[-1] for name in shape.functions if len(name) == 1 or name[0] == "pg_catalog"}
        found = {
            RelationFacts(oid=row[5], schema_name=row[1], name=row[2], kind=row[3], through=row[4])
            for row in rows
            if row[0] == "relation"
        }
        _require_few(len(found))
        return CatalogFacts(
            relations=tuple(sorted(found, key=lambda each: (each.qualified, each.through))),
            unknown=_dotted(rows, "unknown"),
            unknown_types=_dotted(rows, "unknown type"),
            functions={name: own.get(name, "absent") for name in sorted(known)},
            foreign=tuple(
                ForeignName(kind=row[0], schema_name=row[1], name=row[2], detail=row[3], extension=row[4])
                for row in sorted({row[:5] for row in rows if row[0] in _FOREIGN}, key=str)
            ),
        )

    def table(self, connection: Connection, declaration: DatabaseDeclaration, relation: RelationFacts) -> TableFacts:
        """What must be known of a table before it is written. Raises NotFound when it is gone."""
        columns = connection.execute(_COLUMNS, (relation.oid,)).fetchall()
        if not columns:
            msg = f"the table {relation.qualified} is gone"
            raise NotFound(msg, code="sql.no_table", fix="ask again")
        reach = connection.execute(
            _REACH
            + """ select n.nspname, c.relname, c.relkind::text, c.oid::int8, r.through from reach r
            join pg_catalog.pg_class c on c.oid = r.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where r.through <> 'named' order by 1, 2""",
            ([relation.schema_name], [relation.name]),
        ).fetchall()
        related = tuple(_relation(row, row[4]) for row in reach)
        cascades = self._followers(connection, relation.oid, deleting=True)
        key_cascades = self._followers(connection, relation.oid, deleting=False)
        touched = [relation.oid, *(each.oid for each in (*related, *cascades, *key_cascades))]
        trusted = set(declaration.functions)
        code = connection.execute(_CODE, (touched,)).fetchall()
        unknown = tuple(what for what, function in code if function not in trusted)
        return TableFacts(
            relation=relation,
            columns=tuple(Column(name=row[0], type=row[1]) for row in columns),
            key=tuple(row[0] for row in sorted(columns, key=lambda row: row[5]) if row[4]),
            generated=tuple(row[0] for row in columns if row[2]),
            defaults={row[0]: row[3] for row in columns if row[3] is not None},
            unknown_code=unknown,
            related=related,
            referenced=tuple(row[0] for row in connection.execute(_REFERENCED, (relation.oid,)).fetchall()),
            cascades=cascades,
            key_cascades=key_cascades,
            everything=self.tables(connection, None) if unknown else (),
        )

    def tables(self, connection: Connection, schemas: tuple[str, ...] | None) -> tuple[RelationFacts, ...]:
        """Every ordinary table, of these schemas or of all. Raises Invalid when a plan cannot show them."""
        rows = connection.execute(_EVERYTHING, (list(schemas) if schemas is not None else None,)).fetchall()
        _require_few(len(rows))
        return tuple(_relation(row, "everything") for row in rows)

    def _followers(self, connection: Connection, oid: int, *, deleting: bool) -> tuple[RelationFacts, ...]:
        rows = connection.execute(_FOLLOWERS, (oid, "true" if deleting else "false")).fetchall()
        return tuple(_relation(row, "foreign key") for row in rows)

    def _own_functions(self, connection: Connection) -> dict[str, str]:
        version = connection.info.server_version
        with self._lock:
            known = self._functions.get(version)
        if known is None:
            rows = connection.execute(_OWN_FUNCTIONS).fetchall()
            known = {
                name: "internal" if internal else "volatile" if volatile else "safe"
                for name, volatile, internal in rows
            }
            with self._lock:
                self._functions[version] = known
        return known


class _Numbered(dict[str, str]):
    """Gives each parameter that a statement names the next number."""

    def __missing__(self, name: str) -> str:
        self[name] = f"${len(self) + 1}"
        return self[name]


def _question(shape: StatementShape, schemas: tuple[str, ...]) -> tuple[bytes, list[list[Any]]]:
    """What is to be asked of a statement's names, and the values: of kinds of names that it has none of, nothing."""
    given: dict[str, list[Any]] = {"path": list(schemas), "attributes": list(shape.attributes)}
    given["relation_schemas"], given["relations"] = _split(shape.relations)
    given["function_schemas"], given["functions"] = _split(shape.functions)
    given["type_schemas"], given["types"] = _split(shape.types)
    given["operators"] = [name[-1] for name in shape.operators if len(name) == 1]
    text, names = _written(tuple(name for name in ("functions", "attributes", "operators", "types") if given[name]))
    return text, [given[name] for name in names]


@lru_cache(maxsize=16)
def _written(kinds: tuple[str, ...]) -> tuple[bytes, tuple[str, ...]]:
    """The statement, and what its parameters are called, in order."""
    numbered = _Numbered(relation_schemas="$1", relations="$2")
    called = (_FUNCTIONS if "functions" in kinds else "") + (_ATTRIBUTES if "attributes" in kinds else "")
    more = (_OPERATORS if "operators" in kinds else "") + (_TYPES if "types" in kinds else "")
    whole = _REACH + _RELATIONS.replace("{called}", called) + more
    return whole.format_map(numbered).encode(), tuple(numbered)


def _dotted(rows: list[tuple[Any, ...]], kind: str) -> tuple[str, ...]:
    return tuple(sorted(".".join(filter(None, row[1:3])) for row in rows if row[0] == kind))


def _split(names: tuple[tuple[str, ...], ...]) -> tuple[list[str | None], list[str]]:
    """Schemas and names, side by side; what has more parts than two names nothing here."""
    short = [name for name in names if len(name) in (1, 2)]
    return [name[0] if len(name) > 1 else None for name in short], [name[-1] for name in short]


def _relation(row: Any, through: str) -> RelationFacts:
    return RelationFacts(oid=row[3], schema_name=row[0], name=row[1], kind=row[2], through=through)


def _require_few(count: int) -> None:
    if count > RELATIONS_MAX:
        msg = f"it would reach more than {RELATIONS_MAX} tables, which no plan can show"
        raise Invalid(msg, code="sql.too_wide", fix="name less")
