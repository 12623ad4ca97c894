"""What a model writes is shown without being run: no HTML, no scripts behind links, nothing fetched."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dipeo_nb.notebook.safe_markdown import literal, safe

OURS = re.compile(r"<span>&#36;</span>|<pre><code>[^<>]*</code></pre>|<code>[^<>]*</code>|<https?://[^\s<>\"'`]+>")
PIECES = [
    "<script>", "</b>", "<img src=x onerror=y>", "<!--", "<?", "```", "````", "~~~", "`", "``", "\n", "\n\n", "    ", "> ", "- ",
    "1. ", "$", "$$", "\\", "[a](", "![", "](<", "]: ", "javascript:", "JavaScript\\:x", "&#106;", "&colon;", "&Tab;", ")", "text",
    "<https://a.b/c>", "<https://a\"onclick=x>", "|", "@@0@@",
]  # fmt: skip
"""What it takes to confuse a renderer about what is code."""


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("a < b, x<5 and **bold**", "a < b, x<5 and **bold**"),
        ("hi <b>x</b> <!-- c -->", "hi &lt;b>x&lt;/b> &lt;!-- c -->"),
        ("see <https://x.org/a?b=c>", "see <https://x.org/a?b=c>"),
        ("`x` and ``a`b``", "`x` and ``a`b``"),
        ("use `List<int>` here", "use <code>List&#60;int&#62;</code> here"),
        ("```python\nif a < b:\n    c = '$'\n```\nok", "```python\nif a < b:\n    c = '$'\n```\nok"),
        ("```html\n<p>\n\n  a\n```\nok", "<pre><code>&#60;p&#62;&#10;&#10;  a</code></pre>\nok"),
        ("1. a\n   ```js\n   <p>\n     b\n   ```\n2. c", "1. a\n   <pre><code>&#60;p&#62;&#10;  b</code></pre>\n2. c"),
        ("> ~~~\n> <p>\n> ~~~\nx", "> <pre><code>&#60;p&#62;</code></pre>\nx"),
        ("```html\n<p", "<pre><code>&#60;p</code></pre>"),
        ("[x](javascript:f())", "[x](javascript\u2060:f())"),
        ("JavaScript: The Good Parts", "JavaScript: The Good Parts"),
        ("![p](https://x.org/a.png)", "🖼 [p](https://x.org/a.png)"),
        ("a&nbsp;b &#106;", "a&nbsp;b &amp;#106;"),
    ],
)
def test_markdown_stays_and_html_becomes_text(given_text: str, expected: str):
    """Markdown, comparisons and code stay as they are; tags, script links and images do not."""
    assert safe(given_text) == expected


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@example("$$\n```\n$$\n<img src=x onerror=y>")
@example("1. a\n   ```\n<img src=x onerror=y>")
@example("<<script>script>`<b>`")
def test_no_tag_is_left_anywhere(text: str):
    """Whatever the order of fences, quotes, lists, math and tags: no opening of a tag survives, in code or outside."""
    assert not re.search(r"<[A-Za-z/!?]", OURS.sub("", safe(text)))


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@example("[a](java&Tab;script:x)")
@example("[a](< java\tscript:x>)")
@example("[a](javascript\\:x)")
@example("[a]\n\n[a]: <javascript:x>")
def test_no_link_runs_a_script_and_no_image_is_fetched(text: str):
    """A renderer that allows everything finds no `javascript:` link, no image and no HTML but our own code."""
    renderer = MarkdownIt("commonmark", {"html": True})
    renderer.validateLink = lambda url: True  # type: ignore[method-assign]
    html = renderer.render(safe(text))
    tags = set(re.findall(r"<([a-z]+)", html))
    assert tags <= {"p", "pre", "code", "a", "blockquote", "ul", "ol", "li", "em", "strong", "hr", "h", "br", "span"}
    for address in re.findall(r'href="([^"]*)"', html):
        assert not re.match(r"(?i)[\s\x00-\x20]*j\s*a\s*v\s*a\s*s\s*c\s*r\s*i\s*p\s*t\s*:", address)
    assert not re.search(r"<[^>]*\son\w+=", html)


def test_literal_characters():
    """Text in a table or a small line means nothing to Markdown."""
    html = MarkdownIt("commonmark", {"html": True}).render(f"<small>{literal('*a* `b` <i> [c](d) $e$ | _f_')}</small>")
    # each dollar in an element of its own is no mathematics
    text = "*a* `b` &lt;i&gt; [c](d) <span>$</span>e<span>$</span> | _f_"
    assert html == f"<p><small>{text}</small></p>\n"


D = "<span>&#36;</span>"
DOLLARS = {
    "costs $5 a month and $10": f"costs {D}5 a month and {D}10",
    "run `echo $HOME and $PATH`": "run `echo $HOME and $PATH`",
    "$HOME:$PATH": f"{D}HOME:{D}PATH",
    "df$x + df$y": f"df{D}x + df{D}y",
    "$h{$k}": f"{D}h{{{D}k}}",
    "between $5-$10, or US$5": f"between {D}5-{D}10, or US{D}5",
    "$5/month or $9/month": f"{D}5/month or {D}9/month",
    "kill $$ now and $$ later": f"kill {D}{D} now and {D}{D} later",
    "for \\$5": f"for {D}5",
    "|$a$|$5|": f"|$a$|{D}5|",
    "$": D,
    "$x^2$, $n$-th and $2x+1$": "$x^2$, $n$-th and $2x+1$",
    "$\\text{if it is}$": "$\\text{if it is}$",
    "$$y_1$$": "$$y_1$$",
    "$$\na\n\\\\\nb\n$$": "$$a\n\\\\\nb$$",
    "\\(x^2\\) and \\[ y \\]": "$x^2$ and $$y$$",
    "`\\(x\\)`": "`\\(x\\)`",
    "```\n\\(x\\) $5\n```": "```\n\\(x\\) $5\n```",
    "$a<b$ and \\(a > b\\)": "$a\\lt b$ and $a \\gt  b$",
    "\\(<img src=x onerror=y>\\)": "\\(&lt;img src=x onerror=y>\\)",
    "$<b>$": "$\\lt b\\gt $",
    "$![x](http://t)$": "$!{}[x](http://t)$",
    "$\\approx \\$5$": "$\\approx \\$5$",
    "\x1b[31mred\x1b[0m \x1b]8;;http://x\x07y": "red y",
}


@pytest.mark.parametrize("text", DOLLARS)
def test_dollars_are_dollars_unless_they_are_mathematics(text: str):
    """Prices, variables of shells and columns stay text; mathematics in either notation stands between dollars."""
    assert safe(text) == DOLLARS[text]
    assert len(DOLLARS) == 24
