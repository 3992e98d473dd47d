"""A generator of ``docs/reference/api/`` from the docstrings of the public modules: ``python docs/make_reference.py``.

Griffe reads the sources and the sections of their docstrings; no module is imported, so it needs no settings.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import griffe

DOCS = Path(__file__).parent
OUTPUT = DOCS / "reference" / "api"

#: The public modules by page: the page's file, its title, its modules.
PAGES: list[tuple[str, str, list[str]]] = [
    ("core", "Channels, groups, messages, routing", [
        "channelsq", "channelsq.channel", "channelsq.delayed", "channelsq.message", "channelsq.routing",
        "channelsq.options", "channelsq.signals", "channelsq.asgi", "channelsq.utils",
    ]),
    ("exceptions", "Exceptions", ["channelsq.exceptions"]),
    ("sessions", "Sessions and users", ["channelsq.sessions", "channelsq.auth", "channelsq.users"]),
    ("generic", "Generic consumers", ["channelsq.generic", "channelsq.generic.websockets"]),
    ("binding", "Data binding", [
        "channelsq.binding", "channelsq.binding.base", "channelsq.binding.websockets",
        "channelsq.binding.live_templates",
    ]),
    ("http", "HTTP", ["channelsq.handler", "channelsq.staticfiles"]),
    ("security", "Origins and tokens", ["channelsq.security.websockets", "channelsq.security.tokens"]),
    ("layers", "Layers", ["channelsq.layers"]),
    ("test", "For tests", ["channelsq.test", "channelsq.pytest_plugin", "channelsq.test.contract"]),
    ("live", "Live tasks", ["channelsq.live", "channelsq.live.middleware"]),
    ("contrib", "The live admin, and the backend of django.tasks", [
        "channelsq.contrib.admin", "channelsq.contrib.django_tasks",
    ]),
    ("client", "The client in Python", ["channelsq.client"]),
]  # fmt: skip

#: All public modules.
PUBLIC = {module for _, _, modules in PAGES for module in modules}

_HEAD = "<!-- Written by docs/make_reference.py from the docstrings; change those. -->\n"


def public_names(module: griffe.Module) -> list[str]:
    """Return ``__all__`` in the order of the sources."""
    if module.exports is None:
        sys.exit(f"{module.path} has no __all__")
    names = [str(name) for name in module.exports]
    missing = [name for name in names if name not in module.members]
    if missing:
        sys.exit(f"{module.path}.__all__ names {', '.join(missing)}, which is not there")
    return names


def markdown(text: str) -> str:
    """Return a docstring's reStructuredText as Markdown."""
    text = re.sub(r":(?:class|exc|attr|mod|data):`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r":(?:meth|func):`~?([^`]+)`", r"`\1()`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    lines: list[str] = []
    code: list[str] | None = None
    for line in [*text.splitlines(), ""]:
        if code is not None and line.strip() and not line.startswith(" "):
            lines += _fenced(code)
            code = None
        if code is not None:
            code.append(line)
        elif line.rstrip().endswith("::"):
            before = line.rstrip().removesuffix("::").rstrip()
            lines += [f"{before}:"] if before else []
            code = []
        else:
            lines.append(line)
    if code is not None:
        lines += _fenced(code)
    return "\n".join(lines).strip()


def _fenced(code: list[str]) -> list[str]:
    block = textwrap.dedent("\n".join(code)).strip("\n")
    language = "python" if _compiles(block) else "text"
    return ["", f"```{language}", *block.rstrip().splitlines(), "```", ""]


def _compiles(block: str) -> bool:
    try:
        compile(block, "example", "exec")
    except SyntaxError:
        return False
    return True


def signature(function: griffe.Function, name: str, skip_first: bool) -> str:
    """Return a signature such as ``name(a: int, *, b: str = "") -> None``."""
    parts: list[str] = []
    keyword_only = False
    parameters = list(function.parameters)[1 if skip_first else 0 :]
    for parameter in parameters:
        kind = parameter.kind
        if kind is griffe.ParameterKind.keyword_only and not keyword_only:
            keyword_only = True
            parts.append("*")
        star = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
        keyword_only = keyword_only or star == "*"
        # Methods that applications override take any message, so that overrides may name the class.
        annotation = str(parameter.annotation).replace("AnyMessage", "Message")
        typed = f": {annotation}" if parameter.annotation is not None else ""
        default = ""
        if parameter.default is not None and not star:
            default = f" = {parameter.default}" if typed else f"={parameter.default}"
        parts.append(f"{star}{parameter.name}{typed}{default}")
    returns = f" -> {function.returns}" if function.returns is not None and function.name != "__init__" else ""
    one_line = f"{name}({', '.join(parts)}){returns}"
    if len(one_line) <= 100:
        return one_line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"


def body(thing: griffe.Object) -> Iterator[str]:
    """Yield the content of a docstring as Markdown."""
    if thing.docstring is None:
        return
    for section in thing.docstring.parse("google", warnings=False):
        if section.kind is griffe.DocstringSectionKind.text:
            yield markdown(section.value)
        elif section.kind in (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.other_parameters):
            yield "| argument | |\n| --- | --- |\n" + "\n".join(
                f"| `{each.name}` | {cell(each.description)} |" for each in section.value
            )
        elif section.kind is griffe.DocstringSectionKind.raises:
            yield "| raises | when |\n| --- | --- |\n" + "\n".join(
                f"| `{each.annotation}` | {cell(each.description)} |" for each in section.value
            )
        elif section.kind is griffe.DocstringSectionKind.returns:
            yield "Returns " + " ".join(cell(each.description) for each in section.value)
        elif section.kind is griffe.DocstringSectionKind.yields:
            yield "Yields " + " ".join(cell(each.description) for each in section.value)
        elif section.kind is griffe.DocstringSectionKind.attributes:
            yield "| attribute | |\n| --- | --- |\n" + "\n".join(
                f"| `{each.name}` | {cell(each.description)} |" for each in section.value
            )
        elif section.kind is griffe.DocstringSectionKind.admonition:
            title = str(section.title or section.value.kind)
            yield f"{markdown(title)}: {markdown(section.value.description)}"


def cell(text: str) -> str:
    """Return text for one cell of a table."""
    return markdown(text).replace("\n", " ").replace("|", "\\|")


def told_above(attribute: griffe.Attribute) -> str:
    """Return the ``#:`` comment above an attribute."""
    if attribute.docstring is not None:
        return cell(attribute.docstring.value)
    if attribute.lineno is None or not isinstance(attribute.filepath, Path):
        return ""
    lines = attribute.filepath.read_text().splitlines()
    told: list[str] = []
    number = attribute.lineno - 2
    while number >= 0 and lines[number].strip().startswith("#:"):
        told.insert(0, lines[number].strip().removeprefix("#:").strip())
        number -= 1
    return cell(" ".join(told))


def members(cls: griffe.Class, exported: set[str]) -> tuple[list[griffe.Object], dict[str, list[str]]]:
    """Return a class's public members in order, and the names of those that a public base class describes."""
    found: dict[str, griffe.Object] = {}
    inherited: dict[str, list[str]] = {}
    for owner in [cls, *cls.mro()]:
        told = owner is not cls and owner.path in exported
        for name, member in owner.members.items():
            if (name.startswith("_") and name != "__call__") or name in found:
                continue
            target = member.final_target if member.is_alias else member
            if target.is_module or any(name in names for names in inherited.values()):
                continue
            if told:
                if target.is_function:
                    inherited.setdefault(owner.name, []).append(name)
            else:
                found[name] = target  # type: ignore[assignment]
    return list(found.values()), inherited


def shown_bases(cls: griffe.Class) -> Iterator[str]:
    """Return the names of a class's bases; in place of one that hides a library's private parts, its own bases."""
    for base in cls.bases:
        path = base if isinstance(base, str) else base.canonical_path
        if "_internals." in path:
            yield from shown_bases(cls.modules_collection[path])  # type: ignore[arg-type]
        else:
            yield str(base)


def class_section(cls: griffe.Class, name: str, exported: set[str]) -> Iterator[str]:
    """Yield a class with its attributes and methods."""
    bases = ", ".join(f"`{base}`" for base in shown_bases(cls) if not base.startswith("_"))
    init = cls.all_members.get("__init__")
    made = name
    if init is not None and init.is_function:
        function = init.final_target if init.is_alias else init
        made = signature(function, name, skip_first=True)  # type: ignore[arg-type]
    yield f"### {name}\n"
    yield f"```text\nclass {made}\n```\n" + (f"\nBases: {bases}\n" if bases else "")
    for part in body(cls):
        yield part + "\n"
    own, inherited = members(cls, exported)
    attributes = [each for each in own if each.is_attribute]
    told = []
    for each in attributes:
        is_property = "property" in each.labels or "cached" in each.labels
        what = cell(each.docstring.value) if is_property and each.docstring else told_above(each)  # type: ignore[arg-type]
        value = "" if is_property or each.value is None else f" = {each.value}"  # type: ignore[attr-defined]
        if "instance-attribute" in each.labels and "class-attribute" not in each.labels:
            value = ""
        if what or value:
            shown = " ".join(f"{each.name}{value}".split()).replace("|", "\\|")
            told.append(f"| `{shown}` | {what} |")
    if told:
        yield "| attribute | |\n| --- | --- |\n" + "\n".join(told) + "\n"
    for owner, names in inherited.items():
        yield f"As `{owner}` has them: {', '.join(f'`{name}()`' for name in names)}.\n"
    for each in own:
        if each.is_function and each.has_docstring:
            yield from function_section(each, f"{name}.{each.name}", "####", method=True)  # type: ignore[arg-type]


def function_section(function: griffe.Function, name: str, level: str, method: bool = False) -> Iterator[str]:
    """Yield a function or method."""
    static = "staticmethod" in function.labels
    yield f"{level} {name}\n"
    yield f"```text\n{signature(function, function.name, skip_first=method and not static)}\n```\n"
    for part in body(function):
        yield part + "\n"


def module_section(module: griffe.Module, seen: set[str], exported: set[str]) -> Iterator[str]:
    """Yield a public module; names that belong to another one are only listed."""
    yield f"## {module.path}\n"
    for part in body(module):
        yield part + "\n"
    elsewhere: list[str] = []
    for name in public_names(module):
        member = module.members[name]
        thing = member.final_target if member.is_alias else member
        home = str(thing.module.path)
        if thing.path in seen or (home != module.path and home in PUBLIC):
            elsewhere.append(f"`{name}`" + (f" (of `{home}`)" if home != module.path else ""))
            continue
        seen.add(thing.path)
        if thing.is_class:
            yield from class_section(thing, name, exported)  # type: ignore[arg-type]
        elif thing.is_function:
            yield from function_section(thing, name, "###")  # type: ignore[arg-type]
        else:
            yield f"### {name}\n"
            yield (told_above(thing) or f"`{thing.value}`") + "\n"  # type: ignore[arg-type,attr-defined]
    if elsewhere:
        yield f"Also here: {', '.join(elsewhere)}.\n"


def pages() -> dict[str, str]:
    """Return the text of each file in ``docs/reference/api/``."""
    loader = griffe.GriffeLoader(search_paths=[DOCS.parent])
    package = loader.load("channelsq")
    loader.resolve_aliases(implicit=True)
    public = {path: package if path == "channelsq" else package[path.removeprefix("channelsq.")] for path in PUBLIC}
    exported = {
        (member.final_target if member.is_alias else member).path
        for module in public.values()
        for member in map(module.members.__getitem__, public_names(module))
    }
    seen: set[str] = set()
    found = {}
    for file, title, modules in PAGES:
        parts = [f"# {title}\n"]
        for path in modules:
            parts += module_section(public[path], seen, exported)
        text = _HEAD + "\n" + "\n".join(parts)
        found[f"{file}.md"] = re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"
    found["index.md"] = f"{_HEAD}\n# The API\n\nEach public name, with its arguments, attributes and errors.\n\n"
    found["index.md"] += "| page | modules |\n| --- | --- |\n"
    for file, title, modules in PAGES:
        found["index.md"] += f"| [{title}]({file}.md) | {', '.join(f'`{module}`' for module in modules)} |\n"
    return found


def main() -> None:
    """Write the pages, and delete old ones."""
    OUTPUT.mkdir(exist_ok=True)
    texts = pages()
    for old in OUTPUT.glob("*.md"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (OUTPUT / name).write_text(text)


if __name__ == "__main__":
    main()
