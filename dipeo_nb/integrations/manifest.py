"""What a provider's manifest may say: strict models of its YAML or JSON.

A manifest is data. Texts with `{{ … }}` in it are templates over the parameters of an operation; a leaf of a body that is one
expression keeps the type of its value, and one whose parameter was not given is left out. No template contains a secret.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NAME = r"^[a-z][a-z0-9_]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]
Pointer = Annotated[str, Field(pattern=r"^(/.*)?$")]
"""A JSON pointer (RFC 6901); the empty one is the whole answer."""
Effect = Literal["read", "idempotent", "keyed", "once"]
"""What sending an operation twice does: nothing (read), nothing more than sending it once (idempotent), nothing more where the
server knows an idempotency key (keyed), or everything twice (once)."""
Kind = Literal["auth", "not_found", "rate_limited", "rejected", "unavailable"]
"""Kinds of errors that providers report."""
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class Part(BaseModel):
    """Base of all parts of a manifest: immutable, without unknown keys, without conversions."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, strict=True)


class Auth(Part):
    """How requests are authorised. The secret is the API key of the service `key`."""

    kind: Literal["none", "header", "query", "bearer", "basic", "client_credentials", "oauth2_code", "custom"] = "none"
    key: str = ""
    """Service of the API key; default: the name of the provider."""
    optional: bool = False
    """Whether requests are sent without authorisation when there is no key."""
    name: str = ""
    """header and query: the name of the header or parameter."""
    prefix: str = ""
    """header: text before the secret, such as `Bot `."""
    user: str = ""
    """basic: the user name; a template over the variables. Empty: the key is `user:password`."""
    token_url: str = ""
    """client_credentials and oauth2_code: where tokens are issued."""
    authorize_url: str = ""
    """oauth2_code: where the user agrees."""
    scopes: tuple[str, ...] = ()
    hook: Name | None = None
    """custom: function of the hooks module; it takes the request and the secret, and returns headers."""

    @model_validator(mode="after")
    def _complete(self) -> Auth:
        needed = {
            "header": ("name",), "query": ("name",), "custom": ("hook",), "client_credentials": ("token_url",),
            "oauth2_code": ("token_url", "authorize_url"),
        }  # fmt: skip
        for field in needed.get(self.kind, ()):
            if not getattr(self, field):
                raise ValueError(f"auth of the kind {self.kind} needs `{field}`")
        return self


class Limit(Part):
    """Rate limit of a provider's key, or of one operation."""

    algorithm: Literal["token_bucket", "sliding_window", "fixed_window", "leaky_bucket", "none"] = "token_bucket"
    capacity: int = Field(50, ge=1, le=1_000_000)
    """Calls at once, or in one window."""
    per_second: float = Field(1.0, gt=0)
    """token_bucket and leaky_bucket: calls that become free again each second."""
    window: float = Field(60.0, gt=0, le=86_400)
    """sliding_window and fixed_window: seconds."""


class Retry(Part):
    """Repetition of failed calls, as far as the effect of the operation permits it."""

    max: int = Field(default=3, ge=0, le=10)
    delay: float = Field(default=0.5, gt=0, le=60)
    """Seconds before the first repetition; doubled each time."""
    longest: float = Field(default=30.0, gt=0, le=600)
    """Seconds between two attempts at most; a server's Retry-After beyond it ends the call."""
    on: tuple[int, ...] = (408, 425, 429, 500, 502, 503, 504)
    """Statuses."""


class Condition(Part):
    """A condition on an answer; all that is given has to hold."""

    status: tuple[int, ...] = ()
    pointer: Pointer | None = None
    equals: Any = None
    """The value at the pointer."""
    present: bool | None = None
    """Whether there is a value at the pointer."""

    @model_validator(mode="after")
    def _says_something(self) -> Condition:
        if not self.status and self.pointer is None:
            raise ValueError("a condition needs `status` or `pointer`")
        if self.pointer is not None and self.present is None and "equals" not in self.model_fields_set:
            raise ValueError("a condition with `pointer` needs `equals` or `present`")
        return self


class ErrorRule(Part):
    """An answer that reports an error; where its code and its message are."""

    when: Condition | None = None
    """Default: every status that is not a success."""
    code: Pointer | None = None
    message: Pointer | None = None
    kind: Kind | None = None
    """Default: by `kinds`, else by the status."""
    kinds: dict[str, Kind] = {}
    """Code of the provider → kind."""
    hints: dict[str, str] = {}
    """Code of the provider → what to do."""


class Parameter(Part):
    """A parameter of an operation, as a JSON schema."""

    type: Literal["string", "integer", "number", "boolean", "array", "object", "any"] = "string"
    description: str = ""
    required: bool = False
    default: Any = None
    enum: tuple[Any, ...] = ()
    items: dict[str, Any] | None = None
    """Schema of the items of an array."""
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = Field(None, ge=0)
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    """A JSON schema in place of all that."""

    def json_schema(self) -> dict[str, Any]:
        """The parameter as a JSON schema."""
        if self.schema_ is not None:
            return dict(self.schema_)
        said: dict[str, Any] = {} if self.type == "any" else {"type": self.type}
        given = {
            "description": self.description or None, "default": self.default, "enum": list(self.enum) or None, "items": self.items,
            "minimum": self.minimum, "maximum": self.maximum, "maxLength": self.max_length,
        }  # fmt: skip
        return said | {name: value for name, value in given.items() if value is not None}


class Paging(Part):
    """How the pages of a list follow each other."""

    kind: Literal["offset_limit", "page_number", "cursor", "link_header", "next_token"]
    items: Pointer = ""
    """The list in an answer."""
    parameter: str = ""
    """Offset, number of the page, or cursor: the name that it has in the request."""
    place: Literal["query", "body", "form"] = "query"
    """Where it goes."""
    cursor: Pointer | None = None
    """cursor and next_token: the next one in an answer."""
    more: Pointer | None = None
    """Whether there is another page: a boolean in an answer."""
    total: Pointer | None = None
    """offset_limit and page_number: how many items there are."""
    size: str = ""
    """Name of the parameter for the number of items on a page."""
    default_size: int = Field(100, ge=1, le=10_000)
    first: int = Field(1, ge=0)
    """page_number and offset_limit: number of the first page or item."""
    max_pages: int = Field(1_000, ge=1)
    """Pages that `all` reads at most."""

    @model_validator(mode="after")
    def _complete(self) -> Paging:
        if self.kind != "link_header" and not self.parameter:
            raise ValueError(f"paging of the kind {self.kind} needs `parameter`")
        if self.kind in ("cursor", "next_token") and self.cursor is None:
            raise ValueError(f"paging of the kind {self.kind} needs `cursor`")
        return self


class Find(Part):
    """How to see whether a call of unknown outcome arrived: another operation, and which of its items is the one that was sent."""

    operation: Name
    parameters: dict[str, Any] = {}
    """Templates over those of the call."""
    pointer: Pointer
    """Where the stamp is in an item."""
    contains: str = "{{ stamp }}"
    """Text that is in there; a template."""
    exact: bool = False
    """Whether that is all of what is there."""


class Operation(Part):
    """One operation of a provider: the request that it sends, and what its answer means."""

    description: str = ""
    method: Method = "GET"
    path: str = ""
    """Below the base URL, with `{parameter}` as placeholders; or one `{parameter}` alone: a whole address of one of the hosts."""
    effect: Effect | None = None
    """Default: by the method: read (GET, HEAD), idempotent (PUT, DELETE), once."""
    parameters: dict[Name, Parameter] = {}
    one_of: tuple[tuple[Name, ...], ...] = ()
    """Groups of parameters of which exactly one is given."""
    any_of: tuple[tuple[Name, ...], ...] = ()
    """Groups of parameters of which at least one is given."""
    resource: Name | None = None
    """The parameter that `resource_id` of a node sets."""
    query: dict[str, Any] = {}
    headers: dict[str, str] = {}
    body: Any = None
    """The JSON body: a tree whose leaves are templates."""
    form: dict[str, Any] | None = None
    """A body of form fields, in place of a JSON body."""
    body_template: str | None = None
    """The JSON body as the text of one template; values are escaped where they stand between quotes."""
    content: str | None = None
    """A body of text or bytes, as it is: one template."""
    success: tuple[int, ...] = ()
    """Statuses of success; default: all from 200 to 299."""
    result: Pointer = ""
    """What of the answer is the result."""
    empty: Any = None
    """The result when there is nothing at `result`; without it that is an error."""
    answer: Literal["json", "text", "atom"] = "json"
    """What the body of an answer is; atom: a feed, read into `{total, entries}`."""
    transform: dict[str, Any] | None = None
    """Templates over the result (`result`), or over each of its items (`item`) where it is a list."""
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    """JSON schema of the result."""
    errors: tuple[ErrorRule, ...] = ()
    """Before those of the provider."""
    paging: Paging | None = None
    limit: Limit | None = None
    timeout: float | None = Field(None, ge=0.1, le=300)
    """Seconds for one attempt."""
    idempotency_header: str = "Idempotency-Key"
    """keyed: the header that carries the key; empty: the body carries it, as `{{ stamp }}`."""
    find: Find | None = None
    before: Name | None = None
    """Function of the hooks module: takes the rendered request, returns it or another one."""
    after: Name | None = None
    """Function of the hooks module: takes the result, returns it or another one."""
    steps: Name | None = None
    """Function of the hooks module that does it in several calls, in place of a request: takes a caller and the parameters."""
    scopes: tuple[str, ...] = ()
    """Permissions that the key needs; named where the provider refuses."""
    deprecated: str = ""
    """What to say to those who use it."""
    internal: bool = False
    """Whether only hooks call it."""

    @model_validator(mode="after")
    def _consistent(self) -> Operation:
        bodies = [name for name in ("body", "form", "body_template", "content") if getattr(self, name) is not None]
        if len(bodies) > 1:
            raise ValueError(f"an operation has one body, not {' and '.join(bodies)}")
        if bodies and self.method in ("GET", "HEAD"):
            raise ValueError(f"{self.method} has no body; use `query`")
        if self.resource is not None and self.resource not in self.parameters:
            raise ValueError(f"`resource` names '{self.resource}', which is not a parameter")
        for name in (name for group in (*self.one_of, *self.any_of) for name in group):
            if name not in self.parameters:
                raise ValueError(f"`one_of` or `any_of` names '{name}', which is not a parameter")
        if not self.path and self.steps is None:
            raise ValueError("an operation needs a `path`")
        if self.find is not None and self.effective != "once":
            raise ValueError("`find` is for operations whose effect is once")
        return self

    @property
    def effective(self) -> Effect:
        """The effect, or that of the method."""
        if self.effect is not None:
            return self.effect
        return {"GET": "read", "HEAD": "read", "PUT": "idempotent", "DELETE": "idempotent"}.get(self.method, "once")  # pyright: ignore[reportReturnType]

    def json_schema(self) -> dict[str, Any]:
        """The parameters as a JSON schema."""
        return {
            "type": "object",
            "properties": {name: parameter.json_schema() for name, parameter in self.parameters.items()},
            "required": [name for name, parameter in self.parameters.items() if parameter.required],
            "additionalProperties": False,
        }


class Variable(Part):
    """A value that the user sets once for a provider, such as the name of a site; diagrams cannot."""

    description: str = ""
    default: str | None = None


class Manifest(Part):
    """A provider."""

    name: Name
    title: str = ""
    description: str = ""
    version: str = ""
    """Version of the provider's API."""
    docs: str = ""
    """Address of its documentation."""
    base_url: str
    """May contain `{variable}`."""
    hosts: tuple[str, ...] = ()
    """Further servers that it may call, such as `https://files.example.com`."""
    variables: dict[Name, Variable] = {}
    auth: Auth = Auth()
    headers: dict[str, str] = {}
    limit: Limit | None = None
    retry: Retry = Retry()
    timeout: float = Field(30.0, ge=0.1, le=300)
    """Seconds for one attempt."""
    errors: tuple[ErrorRule, ...] = ()
    hooks: str | None = None
    """A Python module with hooks: a file beside the manifest (`hooks.py`)."""
    operations: dict[Name, Operation]

    @field_validator("operations")
    @classmethod
    def _some(cls, operations: dict[str, Operation]) -> dict[str, Operation]:
        if not operations:
            raise ValueError("a provider needs at least one operation")
        return operations
