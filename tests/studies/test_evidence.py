"""Evidence: the bundle, what is not in it, what a check finds, and what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file, save

import expunge as ex
from expunge.core import DamagedFileError, InputError, Record
from expunge.core.row_digests import digest_rows, keyed_rows
from expunge.core.schema import write_atomically
from expunge.methods import GradientAscent
from expunge.studies.audit.recompute import Recomputed
from expunge.studies.evidence.archive import Archive, refuse_name
from expunge.studies.evidence.bundle import canonical
from reference.problems import small_task
from reference.tampering import contents, forge, one_byte, one_number, one_that_follows, remake, write

MEMBERS = 20


@pytest.fixture(scope="module")
def task():
    return small_task("mlp")


@pytest.fixture(scope="module")
def run(tmp_path_factory, task):
    return ex.audit(
        task,
        forget=["random:7"],
        methods=[GradientAscent(lr=0.02, epochs=1), GradientAscent(lr=0.5, epochs=1)],
        members=MEMBERS,
        out=tmp_path_factory.mktemp("evidence") / "run",
        forecast=False,
        chunk=10,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory, run):
    return ex.evidence(run, tmp_path_factory.mktemp("bundle") / "bundle.zip")


def said(found):
    return " | ".join(f"{each.where}: {each.what}" for each in found.differences)


def test_a_bundle_passes_all_checks(made, task):
    found = ex.verify(made.path, recompute=True, task=task, root=made.root)
    assert found.passed, said(found)
    assert found.root == made.root
    assert found.files == made.files == 7
    assert len(found.checked) == 4
    assert re.search(r"verdicts of \d+ settings, computed again", str(found))
    assert "Nothing differs." in str(found)
    assert f"{len(task.train) + len(task.validation)} rows" in str(found)


def test_the_same_run_and_salt_give_the_same_bytes(tmp_path, run, made):
    again = ex.evidence(run.folder / "record.json", tmp_path / "again.zip", salt=made.salt)
    assert again.root == made.root
    assert again.path.read_bytes() == made.path.read_bytes()
    assert again.page.read_bytes() == made.page.read_bytes()
    assert not (tmp_path / "again.salt").exists()
    other = ex.evidence(run.folder, tmp_path / "other.zip")
    assert other.root != made.root
    if os.name == "posix":
        assert stat.S_IMODE(other.salt.stat().st_mode) == 0o600


def test_other_programs_read_the_archive(made):
    """The slow twin of the writer: Python's own reader of zip files."""
    with zipfile.ZipFile(made.path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == sorted(names)
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("statement.html") == made.page.read_bytes()
        for name in names:
            with Archive(made.path) as own:
                assert b"".join(own.chunks(name)) == archive.read(name)


def test_no_row_can_be_read_or_guessed_from_a_bundle(made, run, task):
    files = contents(made.path)
    record = Record.model_validate_json(files["record.json"])
    assert run.record.task["fingerprint"] == task.fingerprint
    whole = b"".join(files.values())
    assert task.fingerprint.encode() not in whole
    plain = digest_rows(task.train)
    assert not any(row.tobytes() in whole or row.tobytes().hex().encode() in whole for row in plain)
    for forget in record.forget_sets:
        assert forget.pictures == {}
        assert forget.names == {}
        assert {example.label for example in forget.worst} == {-1}
    assert made.salt.read_text().strip().encode() not in whole
    assert bytes.fromhex(made.salt.read_text()) not in whole


def test_digests_of_rows_are_those_of_the_standard_library(task):
    """The slow twin, row by row; equal rows have different keyed digests."""
    key, split = bytes(range(32)), task.train
    digests = digest_rows(split)
    for place in (0, 7):
        x, y = split.x[place].numpy(), split.y[place].numpy()
        head = f"{split.x.dtype}|{tuple(x.shape)}|{split.y.dtype}|()|".encode()
        own = hashlib.sha256(head + x.tobytes() + y.tobytes()).digest()
        assert digests[place].tobytes() == own
        mac = hmac.new(key, f"train/{place}|".encode() + own, hashlib.sha256).digest()
        assert keyed_rows(digests, key, "train")[place].tobytes() == mac
    twins = digest_rows(split[np.array([3, 3])])
    assert (twins[0] == twins[1]).all()
    keyed = keyed_rows(twins, key, "train")
    assert (keyed[0] != keyed[1]).any()


def test_every_byte_and_every_number_counts(tmp_path, made):
    """Forty changes of one byte anywhere or of one digit of a number: every one is found."""
    draw = np.random.default_rng(0)
    for number in range(40):
        changed = tmp_path / "changed.zip"
        what = (one_byte if number % 2 else one_number)(made.path, changed, draw)
        try:
            found = ex.verify(changed)
        except (InputError, DamagedFileError):
            continue
        assert not found.passed, what
        if not number % 2:
            assert any(each.where == what.partition(":")[0] for each in found.differences), (what, said(found))


def test_headers_that_zip_programs_ignore_count(tmp_path, made):
    """A date, a version, the attributes, the comment's length: every byte before and after the contents."""
    whole = bytearray(made.path.read_bytes())
    with Archive(made.path) as archive:
        entry = archive.entries["record.json"]
        places = [*range(entry.offset, entry.start), *range(len(whole) - 22, len(whole))]
        line = whole.find(entry.central)
        places += range(line, line + len(entry.central))
    for place in places:
        whole[place] ^= 0x41
        (tmp_path / "changed.zip").write_bytes(whole)
        whole[place] ^= 0x41
        with contextlib.suppress(InputError, DamagedFileError), Archive(tmp_path / "changed.zip") as changed:
            assert changed.wrong, place


def test_what_follows_from_margins_is_computed_again(tmp_path, made):
    """With all digests written anew, a changed score or verdict passes all checks but the computing and the root."""
    kept = {name.partition("/forget")[0] for name in load(contents(made.path)["margins/random-7.safetensors"])}
    draw = np.random.default_rng(1)

    def verdict(raw):
        chosen = next(c for c in raw["forget_sets"][0]["configurations"] if c["id"].startswith("do_nothing"))
        assert chosen["verdict"]["name"] != "indistinguishable"
        chosen["verdict"]["name"] = "indistinguishable"
        return f"{chosen['id']}: verdict"

    def choice(raw):
        forget = raw["forget_sets"][0]
        selection = next(s for s in forget["selections"] if s["method"] == "gradient_ascent")
        own = [c["id"] for c in forget["configurations"] if c["method"] == "gradient_ascent"]
        selection["chosen"] = next(name for name in own if name != selection["chosen"])
        return "gradient_ascent: chosen"

    def bound(raw):
        raw["tolerance"] *= 8
        return "tolerance"

    for number, change in enumerate([verdict, choice, bound, *[one_that_follows(draw, kept)] * 2]):
        forged = tmp_path / f"forged-{number}.zip"
        what = forge(made.path, forged, change)
        assert ex.verify(forged).passed, what
        found = ex.verify(forged, recompute=True)
        assert not found.passed, what
        assert "the margins say" in said(found) or "are missing" in said(found)
        held = ex.verify(forged, root=made.root)
        assert [each.where for each in held.differences] == ["manifest.json"]
        assert "another bundle" in said(held)


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("value", 0.5, 0.5 + 1e-8, True),
        ("value", 0.5, 0.5001, False),
        ("low", 0.5, 0.5001, True),
        ("low", 0.5, 0.51, False),
        ("value", float("nan"), float("nan"), True),
        ("value", float("inf"), float("inf"), True),
        ("value", float("nan"), 0.5, False),
        ("told", 7, 8, False),
        ("told", 1, True, False),
        ("members_needed", 1203, 1206, True),
        ("members_needed", 1203, 1303, False),
        ("members_needed", None, 120, False),
        ("sentence", "an excess of 0.33 (0.23 to 0.42)", "an excess of 0.33 (0.23 to 0.43)", True),
        ("sentence", "an excess of 0.33 (0.23 to 0.42)", "an excess of 0.33 (0.23 to 0.45)", False),
        ("sentence", "an excess of 0.33", "an excess of 0.330", False),
        ("sentence", "7 of 40 rows", "6 of 40 rows", False),
        ("sentence", "Damaged: 0.33", "Undecided: 0.33", False),
        ("sentence", "About 1203 members", "About 1206 members", True),
    ],
)
def test_what_rounding_can_do_is_no_difference(name, one, other, same):
    found = Recomputed()
    found.compare("place", {name: one}, {name: other})
    assert bool(found.differences) != same


def test_a_statement_that_says_more_is_found(tmp_path, made):
    files = contents(made.path)
    statement = json.loads(files["statement.json"])
    statement["not_shown"].pop()
    manifest = json.loads(files["manifest.json"])
    files["statement.json"] = (json.dumps(statement, sort_keys=True, separators=(",", ":")) + "\n").encode()
    manifest["files"]["statement.json"] = {
        "bytes": len(files["statement.json"]),
        "sha256": hashlib.sha256(files["statement.json"]).hexdigest(),
    }
    files["manifest.json"] = (json.dumps(manifest, sort_keys=True, separators=(",", ":")) + "\n").encode()
    found = ex.verify(write(tmp_path / "less.zip", files))
    assert "statement.json: does not say what the record says" in said(found)
    assert "statement.html" in said(found)  # which shows another root


def test_margins_that_were_changed_are_named(tmp_path, made):
    files = contents(made.path)
    margins = load(files["margins/random-7.safetensors"])
    margins["do_nothing@0/forget"] = margins["do_nothing@0/forget"] + np.float32(0.5)
    files["margins/random-7.safetensors"] = save(margins)
    record = json.loads(files["record.json"])
    record["forget_sets"][0]["margins_digest"] = hashlib.sha256(files["margins/random-7.safetensors"]).hexdigest()
    files["record.json"] = json.dumps(record).encode()
    found = ex.verify(remake(files, tmp_path / "margins.zip"), recompute=True)
    assert "do_nothing@0: means.forget is" in said(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop("rows.safetensors"), "rows.safetensors: is missing: the manifest lists it"),
        (lambda files: files.update({"more.txt": b"x"}), "more.txt: is extra: the manifest does not list it"),
        (lambda files: files.update({"inner.zip": b"PK\5\6" + bytes(18)}), "inner.zip: is extra"),
        (lambda files: files.update({"record.json": b"{}"}), r"record.json: has 2 bytes, the manifest says [\d,]+"),
        (lambda files: files.update({"statement.html": bytes(10)}), "statement.html: has 10 bytes"),
        (lambda files: files.update({"manifest.json": b'{"format": "x", "format": "y"}'}), "'format' is there twice"),
        (lambda files: files.update({"manifest.json": b"[" * 100_000}), "manifest.json: cannot be read"),
    ],
)
def test_files_that_are_missing_extra_or_others_are_named(tmp_path, made, change, message):
    files = contents(made.path)
    change(files)
    assert re.search(message, said(ex.verify(write(tmp_path / "other.zip", files))))


def test_rows_of_other_data_are_named(tmp_path, made, task):
    x = task.train.x.clone()
    x[5, 0] += 1
    other = ex.Task(
        name=task.name,
        train=(x, task.train.y),
        validation=(task.validation.x[1:], task.validation.y[1:]),
        model=task.model,
        recipe=task.recipe,
        classes=3,
    )
    found = said(ex.verify(made.path, task=other))
    assert "train rows of the task are not those of the audit: 5 (counted from 0)" in found
    assert "is of 20 validation rows, the task has 19" in found
    slower = small_task("mlp", epochs=4)
    assert "another model, recipe or fit" in said(ex.verify(made.path, task=slower))
    shutil.copy(made.path, tmp_path / "moved.zip")
    with pytest.raises(InputError, match=r"moved\.salt does not exist.*expected --salt FILE"):
        ex.verify(tmp_path / "moved.zip", task=task)
    (tmp_path / "moved.salt").write_text("00" * 32)
    with pytest.raises(InputError, match="is the salt of another bundle"):
        ex.verify(tmp_path / "moved.zip", task=task)
    (tmp_path / "moved.salt").write_text("no salt")
    with pytest.raises(InputError, match="cannot be read as a salt"):
        ex.verify(tmp_path / "moved.zip", task=task)


def made_by_others(path, *entries, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return path


def link():
    info = zipfile.ZipInfo("record.json")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("entries", "method", "message"),
    [
        ([("../../evil.json", b"x")], zipfile.ZIP_STORED, r"'\.\./\.\./evil\.json', which leads out of it"),
        ([("/etc/evil", b"x")], zipfile.ZIP_STORED, r"'/etc/evil', which leads out of it"),
        ([("a/../../b", b"x")], zipfile.ZIP_STORED, "which leads out of it"),
        ([("C:evil", b"x")], zipfile.ZIP_STORED, "which leads out of it"),
        ([("a\\..\\b", b"x")], zipfile.ZIP_STORED, "which leads out of it"),
        ([("a\nb", b"x")], zipfile.ZIP_STORED, "or is no name"),
        ([("folder/", b"")], zipfile.ZIP_STORED, "or is no name"),
        ([(link(), b"/etc/passwd")], zipfile.ZIP_STORED, "is a link"),
        ([("record.json", bytes(10**7))], zipfile.ZIP_DEFLATED, r"is compressed \(deflate, .* become 10,000,000\)"),
        ([("record.json", bytes(10**6))], zipfile.ZIP_LZMA, r"is compressed \(LZMA"),
        ([("readme.txt", b"x")], zipfile.ZIP_STORED, "has no manifest.json, expected a bundle"),
    ],
)
def test_archives_made_to_harm_are_refused(tmp_path, monkeypatch, entries, method, message):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    path = made_by_others(tmp_path / "evil.zip", *entries, method=method)
    with pytest.raises(InputError, match=message):
        ex.verify(path)
    assert list(tmp_path.rglob("*")) in ([tmp_path / "cwd", path], [path, tmp_path / "cwd"])


def test_other_forms_of_archives_are_refused(tmp_path, made):
    whole, path = made.path.read_bytes(), tmp_path / "other.zip"
    with pytest.warns(UserWarning, match="Duplicate"):
        made_by_others(path, ("manifest.json", b"{}"), ("manifest.json", b"{}"))
    with pytest.raises(InputError, match=r"holds 'manifest\.json' twice"):
        ex.verify(path)
    made_by_others(path, ("manifest.json", b"{}"))
    locked = path.read_bytes().replace(b"PK\1\2" + whole[-1:-1], b"PK\1\2")
    place = locked.find(b"PK\1\2") + 8
    path.write_bytes(locked[:place] + b"\1" + locked[place + 1 :])
    with pytest.raises(InputError, match="is encrypted"):
        ex.verify(path)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 60_000, 60_000, 46 * 60_000, 0, 0)
    path.write_bytes(bytes(46 * 60_000) + end)
    with pytest.raises(InputError, match="lists 60,000 files"):
        ex.verify(path)
    for content, message in [
        (b"", "has 0 bytes"),
        (bytes(100), "is no zip file"),
        (whole[:-5], "damaged at its end"),
        (whole[: len(whole) // 2], "damaged at its end"),
    ]:
        path.write_bytes(content)
        with pytest.raises((InputError, DamagedFileError), match=message):
            ex.verify(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(DamagedFileError, match="damaged at its end"):
        ex.verify(path)
    path.write_bytes(b"more" + whole)
    assert "archive" in {each.where for each in ex.verify(path).differences}
    with pytest.raises(InputError, match="cannot be read"):
        ex.verify(tmp_path / "none.zip")
    with pytest.raises(InputError, match="cannot be read"):
        ex.verify(tmp_path)


def test_an_entry_over_another_is_found(tmp_path, made):
    """One stretch of bytes under many names is how a small archive becomes a large one."""
    with Archive(made.path) as archive:
        first, second = list(archive.entries.values())[:2]
    whole = made.path.read_bytes()
    over = second.central[:42] + struct.pack("<I", first.offset) + second.central[46:]
    (tmp_path / "over.zip").write_bytes(whole.replace(second.central, over))
    assert "it begins at byte 0, over the one before" in said(ex.verify(tmp_path / "over.zip"))


@pytest.mark.parametrize("name", ["", ".", "..", "a//b", "a/", "a/./b", "\x00", "c:/x", "\\x", "a\u202eb"])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(InputError, match="leads out of it or is no name"):
        refuse_name(name, tmp_path)


def test_runs_that_cannot_be_evidence(tmp_path, run, made):
    with pytest.raises(InputError, match=r"expected a file that ends in \.zip"):
        ex.evidence(run, tmp_path / "bundle.tar")
    with pytest.raises(InputError, match="is there already and is not overwritten"):
        ex.evidence(run, made.path)
    with pytest.raises(InputError, match="does not exist, expected the folder of a finished run"):
        ex.evidence(tmp_path, tmp_path / "a.zip")
    forecasts = tmp_path / "forecasts"
    forecasts.mkdir()
    (forecasts / "forecast.json").write_text("{}")
    with pytest.raises(InputError, match="holds forecasts alone, expected a finished audit"):
        ex.evidence(forecasts, tmp_path / "a.zip")
    broken = tmp_path / "broken"
    shutil.copytree(run.folder, broken, ignore=shutil.ignore_patterns("ensembles", "report.html"))
    raw = json.loads((broken / "record.json").read_text())
    (broken / "record.json").write_text(json.dumps(raw | {"status": "running"}))
    with pytest.raises(InputError, match=r"is not complete, expected a finished one; go on with it: .*--resume"):
        ex.evidence(broken, tmp_path / "a.zip")
    (broken / "record.json").write_text(json.dumps(raw))
    content = bytearray((broken / "rows.safetensors").read_bytes())
    content[-1] ^= 1
    (broken / "rows.safetensors").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"rows\.safetensors is not the file that the run wrote"):
        ex.evidence(broken, tmp_path / "a.zip")
    assert not list(tmp_path.glob("a.*"))
    (broken / "record.json").write_text(json.dumps(raw | {"rows": "", "rows_digest": ""}))
    older = ex.evidence(broken, tmp_path / "older.zip")  # of a version that kept no digests of rows
    assert "the run kept no digests of them" in older.page.read_text()
    assert ex.verify(older.path, task=small_task("mlp")).passed


def test_the_checkpoint_of_the_request(tmp_path, run, task):
    ex.train(task, members=1, seed=9).export(0, tmp_path / "model.safetensors")
    forget = ex.tasks.random_forget_set(task, 7, seed=run.record.request["seed"])
    placed = load_file(run.folder / "rows.safetensors")["random-7/forget"]
    forget = ex.ForgetSet.of(task, placed, name="rows", how="the rows of the request")
    ex.unlearn_checkpoint(tmp_path / "model.safetensors", task, forget, out=tmp_path / "unlearned")
    made = ex.evidence(run, tmp_path / "bundle.zip", unlearned=tmp_path / "unlearned", task=task)
    new = hashlib.sha256((tmp_path / "unlearned" / "model.safetensors").read_bytes()).hexdigest()
    assert new in made.page.read_text()
    assert "made the checkpoint" in made.page.read_text()
    files = contents(made.path)
    assert new.encode() in files["statement.json"]
    assert task.fingerprint.encode() not in b"".join(files.values())
    assert ex.verify(made.path).passed
    verdict = json.loads(files["unlearned/verdict.json"])
    same = ex.judge(tmp_path / "unlearned" / "model.safetensors", task=task, run=run.folder, forget=forget)
    assert (verdict["name"], verdict["sentence"]) == (same.name, same.sentence)
    assert same.sentence in made.page.read_text().replace("&#39;", "'")
    found = ex.verify(made.path, recompute=True)
    assert found.passed, said(found)
    assert "the verdict on the checkpoint among 40 oracles, computed again" in found.checked
    files["unlearned/verdict.json"] = canonical(verdict | {"name": "compatible", "power": 0.999})
    forged = remake(files, tmp_path / "forged.zip")
    assert ex.verify(forged).passed
    assert "unlearned/verdict.json: power is 0.999, the margins say" in said(ex.verify(forged, recompute=True))
    with pytest.raises(InputError, match="another model or another training than that of the audit"):
        ex.evidence(run, tmp_path / "a.zip", unlearned=tmp_path / "unlearned", task=small_task("mlp", epochs=4))
    with pytest.raises(InputError, match="task was given without unlearned"):
        ex.evidence(run, tmp_path / "a.zip", task=task)
    others = ex.ForgetSet.of(task, [0, 1], name="others", how="two other rows")
    ex.unlearn_checkpoint(tmp_path / "model.safetensors", task, others, out=tmp_path / "others")
    with pytest.raises(InputError, match=r"unlearned for other rows \(others, 2 rows\), expected the one of the audit"):
        ex.evidence(run, tmp_path / "a.zip", unlearned=tmp_path / "others")
    (tmp_path / "unlearned" / "model.safetensors").write_bytes(b"another")
    with pytest.raises(DamagedFileError, match="is not the file that the run wrote"):
        ex.evidence(run, tmp_path / "a.zip", unlearned=tmp_path / "unlearned")


def test_on_the_command_line(tmp_path, run, made, shell):
    done = shell("evidence", str(run.folder), "--out", str(tmp_path / "bundle.zip"), "--salt", str(made.salt))
    assert done.returncode == 0, done.stderr
    assert made.root in done.stdout
    assert max(map(len, done.stdout.splitlines())) >= 64  # the root is never cut
    done = shell("verify", str(tmp_path / "bundle.zip"), "--recompute", "--root", made.root)
    assert done.returncode == 0
    assert "Nothing differs." in done.stdout
    one_number(made.path, tmp_path / "changed.zip", np.random.default_rng(3))
    done = shell("verify", str(tmp_path / "changed.zip"), "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["passed"] is False
    assert answer["differences"][0].keys() == {"where", "what"}
    done = shell("verify", str(tmp_path / "changed.zip"), "--quiet")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "thing differs" in done.stderr or "things differ" in done.stderr
    assert shell("verify", str(run.folder / "record.json")).returncode == 2


def test_a_file_is_written_in_parts_or_not_at_all(tmp_path):
    def parts(fail):
        yield b"one "
        if fail:
            raise InputError("no more")
        yield b"two"

    with pytest.raises(InputError, match="no more"):
        write_atomically(tmp_path / "file", parts(True))
    assert list(tmp_path.iterdir()) == []
    assert write_atomically(tmp_path / "file", parts(False)).read_bytes() == b"one two"


def test_paths_are_paths(made):
    with pytest.raises(InputError, match="out is an int"):
        ex.evidence(Path(), 3)
    with pytest.raises(InputError, match="task is the text 'digits'"):
        ex.verify(made.path, task="digits")


def test_names_of_any_alphabet(tmp_path, made):
    files = contents(made.path)
    record = json.loads(files["record.json"])
    record["forget_sets"][0]["margins"] = "margins/größe 7/Σ.safetensors"
    files["margins/größe 7/Σ.safetensors"] = files.pop("margins/random-7.safetensors")
    files["record.json"] = json.dumps(record).encode()
    renamed = remake(files, tmp_path / "renamed.zip")
    assert "margins/größe 7/Σ.safetensors" in contents(renamed)
    found = ex.verify(renamed, recompute=True)
    assert found.passed, said(found)
    assert any("computed again" in words for words in found.checked)
