"""TypeScript without Node: declarations, JSDoc, values of constants across modules, positions, and what cannot be read."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.codegen.typescript.grammar import MAX_BYTES
from dipeo_nb.codegen.typescript.parser import ALL_PATTERNS, TypeScriptParser, parse, parse_batch
from dipeo_nb.common import steps
from dipeo_nb.domain.ports import ASTParserPort
from dipeo_nb.errors import StorageError, ValidationError

SHOP = """\
import { Currency, type Money as Cash } from './money.js';
import defaults, * as shapes from "./shapes";

/**
 * What is sold.
 * In two lines.
 *
 * @see Order
 */
export interface Product<T extends object = {}> extends Base, shapes.Named<T> {
  readonly id: ProductID;
  /** Shown to people. */
  name: string;
  'price-tag'?: Cash | null;
  tags: readonly string[];
  meta: { [key: string]: unknown }
  discount?(percent: number, ...rest: string[]): Cash;
  get label(): string;
  [key: string]: unknown;
  (amount: number): Cash;
  new (id: ProductID): Product<T>;
}
export type ProductID = string & { readonly __brand: 'ProductID' };
type Pair<A, B = A> = [A, B];
export default class Cart<T> extends Store<T> implements Named, Sized {
  static readonly limit: number = 10;
  protected items: T[] = [];
  #secret?: string;
  declare later: Date;
  constructor(private readonly owner: string, public size = 3) { super(); }
  /** All of it. */
  async total(currency?: Currency): Promise<number> { return 1; }
  get empty(): boolean { return true; }
  set empty(value) {}
  static *walk<T>(): Iterator<T> {}
}
abstract class Store<T> { abstract load(): void; [key: string]: any }
export async function buy<T>({ id }: { id: string }, count: number = 1): Promise<T> { throw 1 }
function* numbers(): Generator<number> {}
export namespace Inner.Deep { export enum Level { Low, High = 5, Higher } export const top = Level.Higher }
declare module 'legacy' { export const version: string; interface Old { a: 1 } }
declare global { interface Window { shop: string } }
export { Pair as Two };
export * from './more';
export type * from './types';
class Box<in out T, out U extends string> { value: T }
declare const declared: string;
export const free = { price: 0, unit: Currency.EUR };
"""
MONEY = "export enum Currency { EUR = 'eur', USD = 'usd' }\nexport interface Money { amount: number }\n"


@pytest.fixture(scope="module")
def shop() -> Mapping[str, Any]:
    return parse_batch({"src/shop.ts": SHOP, "src/money.ts": MONEY}, ALL_PATTERNS, include_jsdoc=True)["src/shop.ts"]["ast"]


def named(items: list[Any], name: str) -> dict[str, Any]:
    (found,) = [item for item in items if item["name"] == name]
    return found


def only(item: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: item[key] for key in keys if key in item}


def test_interfaces(shop: Mapping[str, Any]) -> None:
    """Type parameters, bases, properties, methods, accessors, index, call and construct signatures, JSDoc, positions."""
    product = named(shop["interfaces"], "Product")
    assert only(product, "isExported", "extends", "typeParameters", "jsDoc", "jsDocTags") == {
        "isExported": True,
        "extends": ["Base", "shapes.Named<T>"],
        "typeParameters": [{"name": "T", "constraint": "object", "default": "{}"}],
        "jsDoc": "What is sold.\nIn two lines.",
        "jsDocTags": [{"name": "see", "text": "Order"}],
    }
    assert [only(p, "name", "type", "optional", "readonly", "jsDoc") for p in product["properties"]] == [
        {"name": "id", "type": "ProductID", "optional": False, "readonly": True},
        {"name": "name", "type": "string", "optional": False, "readonly": False, "jsDoc": "Shown to people."},
        {"name": "price-tag", "type": "Cash | null", "optional": True, "readonly": False},
        {"name": "tags", "type": "readonly string[]", "optional": False, "readonly": False},
        {"name": "meta", "type": "{ [key: string]: unknown }", "optional": False, "readonly": False},
    ]
    assert [(m["name"], m["kind"], m["returnType"], m["optional"]) for m in product["methods"]] == [
        ("discount", "method", "Cash", True),
        ("label", "get", "string", False),
    ]
    assert [only(p, "name", "type", "optional", "rest") for p in product["methods"][0]["parameters"]] == [
        {"name": "percent", "type": "number", "optional": False, "rest": False},
        {"name": "rest", "type": "string[]", "optional": True, "rest": True},
    ]
    assert [only(i, "keyName", "keyType", "type") for i in product["indexSignatures"]] == [
        {"keyName": "key", "keyType": "string", "type": "unknown"}
    ]
    assert [(s["kind"], s["returnType"]) for s in product["signatures"]] == [("call", "Cash"), ("construct", "Product<T>")]
    assert product["position"] == {"line": 10, "column": 8, "endLine": 22, "endColumn": 2}
    assert product["properties"][1]["position"] == {"line": 13, "column": 3, "endLine": 13, "endColumn": 15}


def test_types_and_namespaces(shop: Mapping[str, Any]) -> None:
    """Aliases as written; what is nested names its namespace; names of an export clause are exported."""
    assert [(t["name"], t["type"], t["isExported"]) for t in shop["types"]] == [
        ("ProductID", "string & { readonly __brand: 'ProductID' }", True),
        ("Pair", "[A, B]", True),
    ]
    assert shop["types"][1]["typeParameters"] == [
        {"name": "A", "constraint": None, "default": None},
        {"name": "B", "constraint": None, "default": "A"},
    ]
    assert [(n["name"], n["kind"]) for n in shop["namespaces"]] == [
        ("Inner.Deep", "namespace"), ("legacy", "module"), ("global", "global"),
    ]  # fmt: skip
    level = named(shop["enums"], "Level")
    assert level["namespace"] == "Inner.Deep"
    assert level["members"] == [{"name": "Low", "value": 0}, {"name": "High", "value": 5}, {"name": "Higher", "value": 6}]
    assert named(shop["interfaces"], "Old")["namespace"] == "legacy"
    assert named(shop["interfaces"], "Window")["namespace"] == "global"
    assert only(named(shop["constants"], "top"), "value", "namespace") == {"value": 6, "namespace": "Inner.Deep"}


def test_gaps_of_the_grammar(shop: Mapping[str, Any]) -> None:
    """`export type * from` and variance annotations are read past, without a diagnostic."""
    found = parse_batch({"src/shop.ts": SHOP}, ["class", "export"])["src/shop.ts"]
    assert found["metadata"]["diagnostics"] == []
    box = named(shop["classes"], "Box")
    assert [t["name"] for t in box["typeParameters"]] == ["T", "U"]


def test_classes(shop: Mapping[str, Any]) -> None:
    """Visibility, static, abstract, accessors, constructors with their properties, bases."""
    cart = named(shop["classes"], "Cart")
    assert only(cart, "isExported", "isDefault", "isAbstract", "extends", "implements") == {
        "isExported": True, "isDefault": True, "isAbstract": False, "extends": "Store<T>", "implements": ["Named", "Sized"],
    }  # fmt: skip
    assert [
        only(p, "name", "type", "visibility", "isStatic", "readonly", "optional", "defaultValue") for p in cart["properties"]
    ] == [
        {
            "name": "limit",
            "type": "number",
            "visibility": "public",
            "isStatic": True,
            "readonly": True,
            "optional": False,
            "defaultValue": "10",
        },
        {
            "name": "items",
            "type": "T[]",
            "visibility": "protected",
            "isStatic": False,
            "readonly": False,
            "optional": False,
            "defaultValue": "[]",
        },
        {
            "name": "#secret",
            "type": "string",
            "visibility": "private",
            "isStatic": False,
            "readonly": False,
            "optional": True,
            "defaultValue": None,
        },
        {
            "name": "later",
            "type": "Date",
            "visibility": "public",
            "isStatic": False,
            "readonly": False,
            "optional": False,
            "defaultValue": None,
        },
    ]
    assert [
        (m["name"], m["kind"], m["isAsync"], m["isGenerator"], m["isStatic"], m["returnType"]) for m in cart["methods"]
    ] == [
        ("total", "method", True, False, False, "Promise<number>"),
        ("empty", "get", False, False, False, "boolean"),
        ("empty", "set", False, False, False, None),
        ("walk", "method", False, True, True, "Iterator<T>"),
    ]
    assert cart["methods"][0]["jsDoc"] == "All of it."
    (made,) = cart["constructors"]
    assert [only(p, "name", "type", "visibility", "readonly", "defaultValue") for p in made["parameters"]] == [
        {"name": "owner", "type": "string", "visibility": "private", "readonly": True, "defaultValue": None},
        {"name": "size", "type": None, "visibility": "public", "readonly": False, "defaultValue": "3"},
    ]
    store = named(shop["classes"], "Store")
    assert store["isAbstract"]
    assert store["methods"][0]["isAbstract"]


def test_functions_and_exports(shop: Mapping[str, Any]) -> None:
    assert [(f["name"], f["isAsync"], f["isGenerator"], f["isExported"], f["returnType"]) for f in shop["functions"]] == [
        ("buy", True, False, True, "Promise<T>"),
        ("numbers", False, True, False, "Generator<number>"),
    ]
    assert [only(p, "name", "type", "defaultValue") for p in shop["functions"][0]["parameters"]] == [
        {"name": "{ id }", "type": "{ id: string }", "defaultValue": None},
        {"name": "count", "type": "number", "defaultValue": "1"},
    ]
    assert [only(e, "name", "local", "source", "isType") for e in shop["exports"]] == [
        {"name": "default", "local": "Cart", "source": None, "isType": False},
        {"name": "Two", "local": "Pair", "source": None, "isType": False},
        {"name": "*", "local": "*", "source": "./more", "isType": False},
        {"name": "*", "local": "*", "source": "./types", "isType": True},
    ]
    assert [(i["name"], i["imported"], i["source"], i["isType"]) for i in shop["imports"]] == [
        ("Currency", "Currency", "./money.js", False), ("Cash", "Money", "./money.js", True),
        ("defaults", "default", "./shapes", False), ("shapes", "*", "./shapes", False),
    ]  # fmt: skip
    assert named(shop["constants"], "free")["value"] == {"price": 0, "unit": "eur"}


FACTORIES = """
import { Kind } from './kinds';
import * as kinds from './kinds';
export const DEFAULTS = { rows: 4, label: `Rows of ${Kind.Text}` } as const;
export function field(options: { name: string; rows?: number; max?: number; kinds?: string[] }) {
  const { name, rows = DEFAULTS.rows, max, kinds: allowed = ['a'] } = options || {};
  const made = [{ name, ...(max !== undefined && { max }), ...(rows ? { rows } : {}) }];
  if (allowed.length > 1) {
    made.push({ name: `${name}_kind`, values: allowed.map(k => k.toUpperCase()) });
  } else { made[0].only = allowed[0]; }
  return made;
}
export const all = (...names: string[]) => names.flatMap(name => field({ name }));
export const table = Object.fromEntries(Object.entries(Kind).map(([key, value]) => [value, key]));
export const titles = Object.keys(kinds).filter(k => k !== 'Kind');
"""
KINDS = "export enum Kind { Text = 'text', Many = 'many' }\nexport { Kind as Alias };\nexport const limit = 1 << 4;"
VALUES: dict[str, tuple[str, Any]] = {
    "numbers": ("[1_000, 0xff, 0b11, 1.50, 1e3, -2, 10n, +'3']", [1000, 255, 3, 1.5, 1000, -2, 10, 3]),
    "texts": (r"""['a\'b', "\x41\u{1F600}\n", `t${1 + 1}\``]""", ["a'b", "A\U0001f600\n", "t2`"]),
    "whole numbers stay whole": ("`${6 / 2} ${7 / 2} ${0.1 + 0.2}`", "3 3.5 0.30000000000000004"),
    "undefined is left out": ("{ a: undefined, b: null, c: void 0 }", {"b": None}),
    "spreads": ("{ ...{ a: 1, b: 2 }, b: 3, ...(false && { c: 1 }), ...null }", {"a": 1, "b": 3}),
    "arrays": ("[0, ...[1, 2], ...'ab']", [0, 1, 2, "a", "b"]),
    "keys": ("{ 'a-b': 1, [`k${1}`]: 2, 3: 4 }", {"3": 4, "a-b": 1, "k1": 2}),
    "logic": ("[null ?? 1, 0 || 2, 0 ?? 3, '' && 4, !0, 1 ? 'y' : 'n']", [1, 2, 0, "", True, "y"]),
    "comparison": (
        "[1 === 1, true === 1, null == undefined, '1' !== 1, 2 > 1, typeof {}]",
        [True, False, True, True, True, "object"],
    ),
    "members": ("[Kind.Text, Kind['Many'], DEFAULTS?.rows, DEFAULTS.label.length]", ["text", "many", 4, 12]),
    "through a name of its own": ("[kinds.Alias.Text, kinds.limit]", ["text", 16]),
    "optional chains": ("[({} as any).a?.b.c, [1, 2][1]]", [None, 2]),
    "assertions": ("<const>[(1 as number)!, 2 satisfies number]", [1, 2]),
    "methods": ("'a_b'.split('_').map((w, i) => w.toUpperCase() + i).join('-')", "A0-B1"),
    "reduce": ("[1, 2, 3].reduce((sum, n) => sum + n, 0)", 6),
    "sets": ("new Set(['a', 'b', 'a'])", ["a", "b"]),
    "factories": ("field({ name: 'x', max: 3 })", [{"name": "x", "max": 3, "rows": 4, "only": "a"}]),
    "defaults of factories": (
        "field({ name: 'x', rows: 0, kinds: ['p', 'q'] })",
        [{"name": "x"}, {"name": "x_kind", "values": ["P", "Q"]}],
    ),
    "functions of functions": ("all('a', 'b').length", 2),
    "constants of others": ("[table, titles]", [{"text": "Text", "many": "Many"}, ["Alias", "limit"]]),
    "switches": ("((k: string) => { switch (k) { case 'a': case 'b': return 1; default: return 2 } })('b')", 1),
    "loops": ("(() => { let n = 0; for (const k of [1, 2, 3]) { if (k === 2) continue; n += k } return n })()", 4),
    "destructured parameters": ("(({ a, ...rest }: any, [, b] = [1, 2]) => [a, rest, b])({ a: 1, c: 3 })", [1, {"c": 3}, 2]),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name: str) -> None:
    """Constants are evaluated as JavaScript does, through factories, enums and other modules."""
    expression, expected = VALUES[name]
    head = "import { DEFAULTS, field, all, table, titles } from './lib/factories.js';\nimport { Kind } from './lib/kinds.js';\nimport * as kinds from './lib/kinds';\n"
    batch = {"x.ts": f"{head}export const value = {expression};", "lib/factories.ts": FACTORIES, "lib/kinds.ts": KINDS}
    found = parse_batch(batch, ["const"])["x.ts"]
    assert found["ast"].get("constants", [])[0]["value"] == expected
    assert type(found["ast"].get("constants", [])[0]["value"]) is type(expected)
    assert found["metadata"]["diagnostics"] == []


def test_there_are_enough_values() -> None:
    assert len(VALUES) == 23


UNEVALUATED: dict[str, tuple[str, Any, str]] = {
    "unknown name": ("{ a: 1, b: unknown }", {"a": 1, "b": {"$expr": "unknown"}}, "'unknown' is not known here"),
    "call": ("[1, Math.random()]", [1, {"$expr": "Math.random()"}], "is not known"),
    "constructor": ("new Date()", {"$expr": "new Date()"}, "only sets"),
    "circle": ("{ a: value }", {"a": {"$expr": "value"}}, "made of itself"),
    "endless": ("(function f() { return f() })()", {"$expr": "(function f() { return f() })()"}, "'f' is not known|nested"),
    "endless recursion": ("again(1)", {"$expr": "again(1)"}, "nested deeper"),
    "endless growth": ("'x'.repeat(1e9)", {"$expr": "'x'.repeat(1e9)"}, "repeat"),
    "doubling": ("doubled", {"$expr": "doubled"}, "more than"),
    "await": ("await x", {"$expr": "await x"}, "await expression"),
    "changes a module's value": ("grow()", {"$expr": "grow()"}, "changes a value of the module"),
    "regular expression": ("/a+/g", {"$expr": "/a+/g"}, "regex"),
    "not a number": ("0 / 0", {"$expr": "NaN"}, ""),
}


@pytest.mark.parametrize("name", UNEVALUATED)
def test_what_is_not_evaluated_stands_for_itself(name: str) -> None:
    """The smallest part that has no value is `{"$expr": text}`, with a diagnostic that says where and why."""
    expression, expected, reason = UNEVALUATED[name]
    rest = (
        "function again(n) { return again(n + 1) }\nconst list = [];\nfunction grow() { list.push(1); return list }\n"
        "const d1 = ['xxxxxxxxxx'];"
        + "".join(f"const d{n} = [...d{n - 1}, ...d{n - 1}];" for n in range(2, 19))
        + "const doubled = d18;"
    )
    found = parse(f"export const value = {expression};\n{rest}", ["const"])
    constants = found["ast"].get("constants", [])
    assert constants[0]["value"] == expected
    told = [d for d in found["metadata"]["diagnostics"] if d["line"] == 1]
    if reason:
        assert len(told) == 1
        assert told[0]["severity"] == "warning"
        assert any(part in told[0]["message"] for part in reason.split("|"))


def test_functions_are_no_data() -> None:
    found = parse("export const make = { port: (min = 0) => ({ min }) };", ["const"])
    assert found["ast"].get("constants", [])[0]["value"] == {"port": {"$expr": "(min = 0) => ({ min })"}}
    assert [d["severity"] for d in found["metadata"]["diagnostics"]] == ["info"]


def test_accessors_and_declared_constants() -> None:
    found = parse("export const o = { get a() { return 1 }, b: 2 };\ndeclare const c: string;", ["const"])
    assert [c["value"] for c in found["ast"].get("constants", [])] == [{"a": {"$expr": "get a() { return 1 }"}, "b": 2}, None]
    assert [d["message"] for d in found["metadata"]["diagnostics"]] == ["This is not evaluated: an accessor is not evaluated."]


def test_names_need_not_be_paths() -> None:
    """In a batch under any names, what is exported once is found without its import being resolved."""
    batch = {"a": "export enum E { X = 'x' }", "b": "import { E } from '@scope/models';\nexport const v = E.X;"}
    assert parse_batch(batch, ["const"])["b"]["ast"].get("constants", [])[0]["value"] == "x"
    batch["c"] = "export enum E { X = 'other' }"
    assert parse_batch(batch, ["const"])["b"]["ast"].get("constants", [])[0]["value"] == {"$expr": "E.X"}


def test_a_result_is_plain_and_nobody_elses() -> None:
    """Changing one result changes no other one; the order of sources changes nothing."""
    batch = {"a.ts": "export const one = { x: [1] };", "b.ts": "import { one } from './a';\nexport const two = one;"}
    first = parse_batch(batch, ["const"])
    first["a.ts"]["ast"].get("constants", [])[0]["value"]["x"].append(2)
    assert first["b.ts"]["ast"].get("constants", [])[0]["value"] == {"x": [1]}
    assert parse_batch(dict(reversed(batch.items())), ["const"])["b.ts"] == parse_batch(batch, ["const"])["b.ts"]


N = 100_000
HOSTILE: dict[str, str | bytes] = {
    "brackets": "export const a = " + "[" * N + "]" * N,
    "parentheses": "export const a = " + "(" * N + "1" + ")" * N,
    "objects": "export const a = " + "{a:" * N + "1" + "}" * N,
    "types": "export type A = " + "A<" * N + "A" + ">" * N,
    "conditional types": "export type A = " + "A extends B ? " * N + "1" + " : 1" * N,
    "namespaces": "namespace A {" * N + "}" * N,
    "ternaries": "export const a = " + "a ? " * N + "1" + " : 1" * N,
    "signs": "export const a = " + "!" * N + "1",
    "members": "export const a = x" + ".y" * N,
    "calls": "export const a = x" + "()" * N,
    "arrows": "export const a = " + "(x) => " * N + "1",
    "templates": "export const a = " + "`${" * N + "}`" * N,
    "open": "interface A { x: " + "{" * N,
    "closed": "}" * N,
    "binary": bytes(range(256)) * 400,
    "not UTF-8": b"export const a = '\xff\xfe';",
    "huge": "export interface A { x: string }\n" * 330_000,
    "one of text": "not TypeScript at all, this is prose, and goes on",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sources(name: str) -> None:
    """One diagnostic with a position each: no crash, no long work."""
    started = time.process_time()
    found = parse(HOSTILE[name], ALL_PATTERNS)
    assert time.process_time() - started < 20
    (told,) = found["metadata"]["diagnostics"]
    assert told["line"] >= 1
    assert told["column"] >= 1
    assert len(told["message"]) + len(told["text"]) < 300
    if not found["metadata"]["success"]:
        assert told["message"] in found["metadata"].get("error", "")


@pytest.mark.slow
def test_many_constants_are_bounded_together() -> None:
    """Steps, values and diagnostics of a whole batch have limits; what is beyond them stands for itself."""
    doubling = "const d1 = ['xxxxxxxxxx'];" + "".join(f"const d{n} = [...d{n - 1}, ...d{n - 1}];" for n in range(2, 18))
    copies = "".join(f"export const c{n} = d17;" for n in range(30))
    found = parse(doubling + copies, ["const"])["ast"].get("constants", [])
    assert found[17]["value"] == ["xxxxxxxxxx"] * 65536
    assert found[-1]["value"] == {"$expr": "d17"}
    unknown = parse("".join(f"export const u{n} = [{'u,' * 100}];" for n in range(50)), ["const"])
    assert len(unknown["metadata"]["diagnostics"]) == 1000
    assert unknown["metadata"]["diagnostics"][-1]["message"].endswith("There are more such places.")
    loops = "function f() { let n = 0; for (const a of t) for (const b of t) n += 1; return n }\nconst t = 'x'.repeat(1000).split('');"
    started = time.process_time()
    slow = parse(loops + "".join(f"const v{n} = f();" for n in range(10)), ["const"])["ast"].get("constants", [])
    assert slow[-1]["value"] == {"$expr": "f()"}
    assert time.process_time() - started < 20


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_ends_of_lines_and_a_byte_order_mark_change_nothing(end: str) -> None:
    """A source gives the same on every system, positions included."""
    text = (
        "/** First\n * second.\n */\nexport interface A {\n  /** x */ a: Array<\n    string>;\n}\n"
        "export const t = `ä\n${1}\n`, s = 'a\\\nb'; // end\nexport type B = { a: 1;\n  b: 2 };\nconst x = @;\n"
    )
    found = parse(text, ALL_PATTERNS, include_jsdoc=True)
    assert found["ast"].get("interfaces", [])[0].get("jsDoc") == "First\nsecond."
    assert [c["value"] for c in found["ast"].get("constants", [])[:2]] == ["ä\n1\n", "ab"]
    other = text.replace("\n", end)
    assert parse(other, ALL_PATTERNS, include_jsdoc=True) == found
    assert parse(b"\xef\xbb\xbf" + other.encode(), ALL_PATTERNS, include_jsdoc=True) == found


def test_a_source_that_is_too_large_is_not_parsed() -> None:
    assert not parse("x" * (MAX_BYTES + 1))["metadata"]["success"]
    assert parse(f"export type A = '{'x' * 70_000}';")["ast"].get("types", [])[0]["name"] == "A"


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("interface A { x: string }\ninterface B { y: ; }\ninterface C { z: number }", 2, 16),
        ("const ä = 'ü', b = @;\ninterface A {}", 1, 18),
        ("export interface A { x: string\n", 1, 31),
    ],
)
def test_what_is_not_understood_is_read_past(text: str, line: int, column: int) -> None:
    """A diagnostic says line and column, in characters, from 1; the rest is read."""
    found = parse(text)
    assert found["metadata"]["success"]
    (told,) = found["metadata"]["diagnostics"]
    assert (told["severity"], told["line"], told["column"]) == ("error", line, column)
    assert named(list(found["ast"].get("interfaces", [])), "A")


def test_jsx_by_name() -> None:
    """`.tsx` has JSX; elsewhere `<T>x` is an assertion of a type."""
    jsx = "export interface P { a: string }\nexport const View = (p: P) => <div a={p.a}>{p.a}</div>;"
    assert parse_batch({"v.tsx": jsx})["v.tsx"]["metadata"]["diagnostics"] == []
    assert parse_batch({"v.ts": jsx})["v.ts"]["metadata"]["diagnostics"]
    assert parse("const a = <string>b;", ["const"])["metadata"]["diagnostics"][0]["severity"] == "warning"
    assert parse(jsx, tsx=True)["metadata"]["diagnostics"] == []


def test_patterns_have_plurals_and_unknown_ones_are_refused() -> None:
    found = parse("interface A {}\nenum B {}", ["interfaces", "interface"])
    assert found["ast"].keys() == {"interfaces"}
    assert found["metadata"]["extractedPatterns"] == ["interface"]
    assert found["metadata"]["astSummary"] == {
        "kind": "SourceFile", "childCount": 2, "hasInterfaces": True, "hasTypes": False, "hasEnums": False, "hasClasses": False,
        "hasFunctions": False, "hasConstants": False, "hasExports": False,
    }  # fmt: skip
    with pytest.raises(ValidationError, match="no pattern 'struct'") as caught:
        parse("", ["struct"])
    assert "interface, type, enum" in str(caught.value.hint)


def test_files(tmp_path: Path) -> None:
    """Below the base directory, with modules that name each other; nothing outside it is read."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m/a.ts").write_text("export enum E { X = 'x' }")
    (tmp_path / "m/b.ts").write_text("import { E } from './a';\nexport const v = E.X;")
    (tmp_path.parent / "secret.ts").write_text("export const s = 1;")
    parser = TypeScriptParser(tmp_path)
    found = asyncio.run(parser.parse_files(["m/a.ts", tmp_path / "m/b.ts"], ["const"]))
    assert found["m/b.ts"]["ast"].get("constants", [])[0]["value"] == "x"
    for path in ("../secret.ts", str(tmp_path.parent / "secret.ts"), "m/missing.ts", "m"):
        with pytest.raises(StorageError):
            asyncio.run(parser.parse_file(path))


def test_results_are_remembered_by_content() -> None:
    """The same sources and options are parsed once; a result that is changed stays whole in the cache."""
    parser = TypeScriptParser()
    assert isinstance(parser, ASTParserPort)
    options = {"extract_patterns": ["const"], "include_jsdoc": True}
    first = asyncio.run(parser.parse({"a.ts": "/** D */ export const x = [1];"}, options))
    first["a.ts"]["ast"].get("constants", []).clear()
    second = asyncio.run(parser.parse({"a.ts": "/** D */ export const x = [1];"}, options))
    assert second["a.ts"]["ast"].get("constants", [])[0]["value"] == [1]
    assert (parser.hits, parser.misses) == (1, 1)
    asyncio.run(parser.parse({"a.ts": "export const x = [2];"}, options))
    asyncio.run(parser.parse({"b.ts": "export const x = [2];"}, options))
    assert (parser.hits, parser.misses) == (1, 3)
    parser.clear_cache()
    asyncio.run(parser.parse({"b.ts": "export const x = [2];"}, options))
    assert parser.misses == 4


def test_parsing_can_be_cancelled_and_leaves_the_loop_free() -> None:
    """The event loop goes on meanwhile; after a cancellation the work ends at the next source."""
    sources = {f"{n}.ts": "export interface A { x: string }\n" * 200 for n in range(400)}
    begun, seen = threading.Event(), list[int]()

    def report(_: str, number: int, of: int) -> None:
        assert of == 400
        seen.append(number)
        begun.set()

    async def work() -> None:
        with steps.reported_to(report):
            task = asyncio.create_task(TypeScriptParser().parse_batch(sources))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert seen[0] == 1
    assert len(seen) < 400


@given(st.text(alphabet=st.sampled_from(list("{}()[]<>:;,.'\"`$=>?|&*!@# \nab1\\/\u00e4\U0001f600")), max_size=80))
def test_any_text_gives_a_result(text: str) -> None:
    """Whatever the text: a result, and positions within it."""
    found = parse(f"export const a = {text}", ALL_PATTERNS, include_jsdoc=True)
    for told in found["metadata"]["diagnostics"]:
        assert 1 <= told["line"] <= text.count("\n") + 2
