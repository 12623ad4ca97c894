"""diff_patch: applies a patch to one file.

All hunks or none, unless the mode is `force`; the file is written whole, after its backup. The output is
`{status, target_path, applied_hunks, rejected_hunks, backup_path, file_hash, dry_run, errors}`.
"""

from __future__ import annotations

import hashlib
import posixpath
from typing import Any, cast

from dipeo_nb.common.cancellable import in_thread
from dipeo_nb.domain.enums import PatchMode
from dipeo_nb.domain.nodes import DiffPatchNode
from dipeo_nb.errors import NodeExecutionError, StorageError
from dipeo_nb.execution import patches
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, plain


async def execute(context: NodeContext) -> Output:
    spec = cast(DiffPatchNode, context.node.spec)
    target = _path(context, spec.target_path or "")
    if not target:
        raise NodeExecutionError("The node has no `target_path`.", hint="Name the file to patch.")
    return await in_thread(_patch_file, context, spec, target, _diff(context, spec))


def _path(context: NodeContext, template: str) -> str:
    return context.file_name(context.render(template)).strip()


def _diff(context: NodeContext, spec: DiffPatchNode) -> str:
    """The input `diff`, else the field, else the only input."""
    values = context.inputs.values
    given = values.get("diff")
    if given is None and "diff" in context.inputs.spread:
        given = context.inputs.spread["diff"]
    if given is None and spec.diff:
        given = context.render(spec.diff) if "{{" in spec.diff else spec.diff
    if given is None:
        given = context.inputs.body
    text = plain(given)
    if not isinstance(text, str) or not text.strip():
        raise NodeExecutionError("The node has no diff.", hint="Set `diff`, or draw an arrow labelled diff.")
    return text


def _patch_file(context: NodeContext, spec: DiffPatchNode, target: str, diff: str) -> Output:
    files = context.services.files
    exists = files.exists(target)
    if not exists and not spec.create_missing:
        raise StorageError(
            f"There is no file '{target}' to patch.",
            hint="Check `target_path`, or set create_missing.",
            operation="read",
        )
    before = files.read_bytes(target) if exists else b""
    try:
        old = before.decode("utf-8")
    except UnicodeDecodeError:
        raise NodeExecutionError(f"'{target}' is not UTF-8 text.", hint="Only texts can be patched.") from None
    patch = _chosen(spec, target, diff, old)
    result = patches.apply(
        old,
        patch,
        fuzz=spec.fuzz_factor,
        ignore_whitespace=spec.ignore_whitespace,
        force=spec.apply_mode is PatchMode.FORCE,
    )
    dry = spec.apply_mode is PatchMode.DRY_RUN
    body: dict[str, Any] = {
        "status": "dry_run" if dry and not result.rejected else "partial" if result.rejected else "success",
        "target_path": target,
        "applied_hunks": len(result.placed),
        "rejected_hunks": len(result.rejected),
        "backup_path": None,
        "file_hash": hashlib.sha256(result.text.encode()).hexdigest(),
        "dry_run": dry,
        "errors": [f"Hunk {n} does not fit (line {patch.hunks[n - 1].start + 1})." for n in result.rejected],
    }
    if result.rejected and spec.reject_file and not dry:
        files.write_text(_path(context, spec.reject_file), patches.rejects(patch, result.rejected))
    if result.rejected and not result.placed:
        raise NodeExecutionError(
            f"The patch does not fit '{target}': {' '.join(body['errors'])} The file is as it was.",
            hint="Make the diff again, against the file, raise fuzz_factor, or set apply_mode: force to apply what fits.",
        )
    if not dry and result.text != old:
        if spec.backup and exists:
            body["backup_path"] = _backup(context, spec, target, before)
        files.write_bytes(target, result.text.encode())
    return Output(body, meta={"path": target, "placed": [list(p) for p in result.placed]})


def _chosen(spec: DiffPatchNode, target: str, diff: str, old: str) -> patches.Patch:
    """The patch of the target's file; a diff of one file is meant for the target, whatever it calls it."""
    try:
        found = patches.parse(diff, old, form=str(spec.format), reverse=spec.apply_mode is PatchMode.REVERSE)
    except ValueError as error:
        raise NodeExecutionError(
            f"The diff cannot be read as {spec.format}: {error}.", hint=f"Formats: {', '.join(patches.FORMATS)}."
        ) from None
    if len(found) == 1:
        return found[0]
    named = {_stripped(patch.path, spec.strip_level): patch for patch in found}
    if target not in named:
        raise NodeExecutionError(
            f"The diff is for {', '.join(sorted(named))}, not for '{target}'.",
            hint="Check `target_path` and `strip_level`; one node patches one file.",
        )
    return named[target]


def _stripped(path: str, level: int) -> str:
    """`a/src/x.py` without its first *level* folders."""
    return "/".join(path.split("/")[level:]) or posixpath.basename(path)


def _backup(context: NodeContext, spec: DiffPatchNode, target: str, data: bytes) -> str:
    """A copy of the file as it was; the name is that of this run of the node, so that a second attempt keeps the first."""
    files = context.services.files
    folder = spec.backup_dir or posixpath.dirname(target)
    mark = hashlib.sha256(context.idempotency_key.encode()).hexdigest()[:8]
    path = posixpath.join(folder, f"{posixpath.basename(target)}.backup.{mark}")
    if not files.exists(path):
        files.write_bytes(path, data)
    return path
