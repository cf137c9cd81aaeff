"""Databases that are guarded: what is known about a statement and a catalogue, and how they are reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.model import Frozen
from interlock.core.outside import OutsideKey

SQL_BYTES_MAX = 16 * 1024
"""A longer statement may overflow the C stack of the parser (64 KB of `1+1+...` end it)."""

SCRIPT_BYTES_MAX = 256 * 1024

StatementKind = Literal["select", "explain", "insert", "update", "delete", "other"]
Name = tuple[str, ...]
"""A name as it is written, part by part: `("orders",)` or `("public", "orders")`."""

Scalar = str | int | float | bool | None


class StatementShape(Frozen):
    """What a parsed statement is made of; nothing about whether it is allowed.

    `text` is the statement alone. `nodes` are the parser's node types. `functions`, `operators`, `types`, `relations`
    are names as written, after unescaping; a relation may be the name of a CTE. `attributes` are names behind a dot,
    which PostgreSQL may take for functions. `target`, `alias`, `assigned` belong to INSERT, UPDATE and DELETE.
    """

    text: str
    kind: StatementKind
    root: str
    nodes: tuple[str, ...] = ()
    relations: tuple[Name, ...] = ()
    functions: tuple[Name, ...] = ()
    operators: tuple[Name, ...] = ()
    types: tuple[Name, ...] = ()
    collations: tuple[Name, ...] = ()
    attributes: tuple[str, ...] = ()
    ctes: tuple[str, ...] = ()
    parameters: int = 0
    target: Name | None = None
    alias: str | None = None
    assigned: tuple[str, ...] = ()
    reassigned: tuple[str, ...] = ()
    """What ON CONFLICT DO UPDATE assigns."""
    returning: bool = False
    only: bool = False
    where: bool = False
    on_conflict: Literal["nothing", "update"] | None = None
    explain_options: tuple[str, ...] = ()


class SqlParser(Protocol):
    """Parses PostgreSQL's SQL, in a process of its own that may die of it."""

    @property
    def parse(self) -> Callable[[str], StatementShape]:
        """The one statement of this text.

        Raises: Invalid (too long, not SQL, none or several statements, too deeply nested), Transient (no parser).
        """
        ...

    def split(self, sql: str) -> tuple[ScriptStatement, ...]:
        """The statements of a script of at most `SCRIPT_BYTES_MAX` bytes. Raises as `parse`."""
        ...


class ScriptStatement(Frozen):
    """One statement of a script: the parser's word for what it is (`create_stmt`), and its text."""

    root: str
    text: str


class Column(Frozen):
    """A column of a result: its name and the name of its type."""

    name: str
    type: str


class RelationFacts(Frozen):
    """A relation that a statement reaches: by its own name, or through a view, a partition or a foreign key."""

    oid: int
    schema_name: str
    name: str
    kind: str
    """`pg_class.relkind`: r, p, v, m, f, S ..."""
    through: str
    """How it is reached: `named`, `view`, `inheritance`, `foreign key`."""

    @property
    def qualified(self) -> str:
        """`public.orders`."""
        return f"{self.schema_name}.{self.name}"


class ForeignName(Frozen):
    """An object outside `pg_catalog` that a name of the statement means, or could mean.

    `kind`: `function`, `attribute` (a function that could be called as `row.name`), `cast`, `view function`,
    `operator`, `type`; a type's `detail` is its `pg_type.typtype`, a function's its `provolatile`.
    """

    kind: Literal["function", "attribute", "cast", "view function", "operator", "type"]
    schema_name: str
    name: str
    detail: str
    extension: str | None

    @property
    def qualified(self) -> str:
        """`evil.now`."""
        return f"{self.schema_name}.{self.name}"


class CatalogFacts(Frozen):
    """What the database says about the names of one statement.

    `unknown` are names of relations that nothing answers to; a CTE's is one of them. `functions` says of each name in
    `pg_catalog`: `safe`, `volatile` (some function of that name is), `internal` (not made to be called), `absent`.
    """

    relations: tuple[RelationFacts, ...] = ()
    unknown: tuple[str, ...] = ()
    unknown_types: tuple[str, ...] = ()
    functions: dict[str, str] = {}
    foreign: tuple[ForeignName, ...] = ()


class TableFacts(Frozen):
    """What must be known of a table before it is written.

    `unknown_code`: triggers, rules, defaults and checks that run functions which nobody vouched for; `everything`
    then holds all tables that they might reach. `defaults` are expressions by column. Foreign keys of
    other tables refer to the columns `referenced`. `cascades` are tables whose rows
    follow when rows here are deleted, `key_cascades` when their keys change.
    """

    relation: RelationFacts
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    generated: tuple[str, ...]
    defaults: dict[str, str]
    unknown_code: tuple[str, ...]
    related: tuple[RelationFacts, ...]
    referenced: tuple[str, ...]
    cascades: tuple[RelationFacts, ...]
    key_cascades: tuple[RelationFacts, ...]
    everything: tuple[RelationFacts, ...]


class QueryResult(Frozen):
    """Rows as text, exactly as PostgreSQL writes them; None is NULL."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str | None, ...], ...]
    truncated: bool
    truncated_cells: int


class Image(Frozen):
    """Rows of one table as text, in the order of their key; of an image of many rows only the digest counts."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]


class WriteRequest(Frozen):
    """A statement to perform, all of it checked before.

    `keep_images` False: too many rows, no key, or code that nobody knows; then only the number of rows is known.
    """

    shape: StatementShape
    parameters: tuple[Scalar, ...]
    table: TableFacts
    keep_images: bool


class WriteOutcome(Frozen):
    """What a statement did, or would do: rows touched, and the rows before and after it where they are kept."""

    rows: int
    before: Image | None
    after: Image | None
    unstable: tuple[str, ...] = ()
    """Columns whose new value is decided when it happens: a sequence, the time."""


class TransactionIdentity(Frozen):
    """A transaction of the guarded database, by which its fate can be asked for after a crash."""

    xid: str
    system: str


Fate = Literal["committed", "aborted", "in progress", "unknown"]
BeforeCommit = Callable[[TransactionIdentity, WriteOutcome], None]
"""Called in the open transaction, when all but the commit is done; what it raises rolls back."""


UNFINISHED = "unfinished:"
"""What stands before the SHA-256 of a file without a transaction, until all of it was applied."""


class MigrationScript(Frozen):
    """One file of a migration folder, or the file that takes it back (`reverts`)."""

    version: str
    name: str
    sha256: str
    statements: tuple[str, ...]
    transactional: bool
    reverts: bool


class SqlDatabases(Protocol):
    """The guarded databases. Every method blocks within the declaration's bounds.

    All raise: NotFound (no such database or role declared), Denied (`sql.role`: the role is not a plain one;
    `sql.permission`), Invalid (`sql.rejected`: what PostgreSQL says of the statement), Transient (not reachable,
    time-outs, locks). No message holds a password or a connection string.
    """

    def declaration(self, database: str) -> DatabaseDeclaration:
        """Raises NotFound."""
        ...

    def look_up(self, database: str, shape: StatementShape, *, writing: bool) -> CatalogFacts:
        """What the names of a statement stand for."""
        ...

    def read(
        self,
        database: str,
        shape: StatementShape,
        parameters: Sequence[Scalar],
        expected: CatalogFacts,
        hold: Callable[[], None],
    ) -> QueryResult:
        """Run a query in a read-only transaction. Raises Stale when its names mean something else than expected."""
        ...

    def table(self, database: str, relation: RelationFacts) -> TableFacts:
        """What must be known of a table before it is written."""
        ...

    def estimate(self, database: str, shape: StatementShape, parameters: Sequence[Scalar]) -> int:
        """How many rows PostgreSQL expects a statement to touch; nothing is run."""
        ...

    def rehearse(self, database: str, request: WriteRequest) -> WriteOutcome:
        """Run a statement in a transaction and roll it back."""
        ...

    def write(
        self, database: str, request: WriteRequest, accept: Callable[[WriteOutcome], None], before_commit: BeforeCommit
    ) -> WriteOutcome:
        """Run a statement. `accept` sees the outcome before anything is kept, and raises what rolls it back."""
        ...

    def put_back(
        self,
        database: str,
        table: TableFacts,
        before: Image,
        after: Image,
        before_commit: Callable[[TransactionIdentity], None],
    ) -> int:
        """Make the rows of `after` be as in `before`. Raises Stale when one of them is not as in `after` any more."""
        ...

    def fate(self, database: str, identity: TransactionIdentity) -> Fate:
        """What became of a transaction."""
        ...

    def applied_migrations(self, database: str) -> dict[str, str]:
        """Version -> SHA-256 of what was applied, from the table that `migrate` keeps."""
        ...

    def migrate(self, database: str, script: MigrationScript, hold: Callable[[], None]) -> bool:
        """Apply one file and write it down, in one transaction unless the file says otherwise.

        Returns: False when it was so already. `hold` is called before each statement and before the commit.

        Raises: Stale when another file of this version was applied; Transient (sent) when a file without a transaction
            broke off in the middle.
        """
        ...

    def tables(self, database: str) -> tuple[RelationFacts, ...]:
        """Every table of the declared schemas."""
        ...


SQL_PARSER: OutsideKey[SqlParser] = OutsideKey("the SQL parser")
SQL_DATABASES: OutsideKey[SqlDatabases] = OutsideKey("the guarded databases")
