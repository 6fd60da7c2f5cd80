#!/usr/bin/env python3
"""Breaks the engine on purpose, in a copy of it, and looks whether a test turns red.

    scripts/mutants.py [--check] [--list] [NAME...]

Each mutant is an edit of one or more source files, with the test programs, or parts of them, that should notice it. `--check` only
looks whether each edit still applies, and that once. Builds in $GRADIX_CACHE/mutants, with the default features.
Needs ROCKSDB_LIB_DIR and ROCKSDB_STATIC, which scripts/mutants.sh sets.
"""

import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A test program that hangs has noticed too.
LIMIT = 300

STORE, WRITER, GC = "src/manifest/store.rs", "src/index/writer.rs", "src/index/gc.rs"
READABLE, FILES, STORAGE = "src/index/readable.rs", "src/files.rs", "src/segment/storage.rs"
GUARD, COMMITTED, RECOVER = "src/manifest/guard.rs", "src/index/committed.rs", "src/index/recover.rs"
ATTACH, ATTACHMENT, DETACHED, PART = (f"src/index/{name}.rs" for name in ("attach", "attachment", "detached", "part"))
ARTIFACTS, COVERAGE, CURVATURE, FIT, OBSERVE = (
    f"src/index/{name}.rs" for name in ("artifacts", "coverage", "curvature", "fit", "observe"))
ART_READER, ART_WRITER, FACTOR = "src/artifact/reader.rs", "src/artifact/writer.rs", "src/curvature/factor.rs"
# A test program, or part of it by names of tests.
POWER, FAULTS, SCENES = "torture:power_cut_at_any_moment", "torture:call_that_fails_once", "reliability"

# Name; edits: file, what stands there, what stands there instead; who should notice.
MUTANTS = [
    # Durability: each step of the commit, and its order.
    ("no-sync-at-all", [
        (FILES, "    file.sync_all()?;\n    fs::rename", "    fs::rename"),
        (FILES, "if cfg!(windows) { Ok(()) } else { File::open(folder)?.sync_all() }", "let _ = folder;\n    Ok(())"),
        (STORAGE, "        self.sync_all()\n", "        Ok(())\n"),
        (STORE, "options.set_sync(true);", "options.set_sync(false);"),
    ], POWER),
    ("replace-without-sync", [(FILES, "    file.sync_all()?;\n    fs::rename", "    fs::rename")], POWER),
    ("folder-never-synced", [(FILES, "if cfg!(windows) { Ok(()) } else { File::open(folder)?.sync_all() }",
                              "let _ = folder;\n    Ok(())")], POWER),
    ("segment-not-synced", [(STORAGE, "        self.sync_all()\n", "        Ok(())\n")], POWER),
    ("batch-not-synced", [(STORE, "options.set_sync(true);", "options.set_sync(false);")], POWER),
    ("rename-before-sync", [(FILES, "    file.sync_all()?;\n    fs::rename(unfinished, folder.join(name))?;\n",
                             "    fs::rename(unfinished, folder.join(name))?;\n    file.sync_all()?;\n")], POWER),
    ("committed-before-batch", [
        (WRITER, "        batch.apply()?;\n        // The commit is durable.",
         "        committed::write(&self.shared.path, state.generation)?;\n        batch.apply()?;\n        // The commit is durable."),
    ], POWER),
    ("intent-after-file", [
        (WRITER, "                intend(&self.manifest, segment)?;\n", ""),
        (WRITER, "        let first_row = open.push(id, rows)?;\n",
         "        if open.rows() == 0 {\n            intend(&self.manifest, open.segment())?;\n        }\n        let first_row = open.push(id, rows)?;\n"),
    ], POWER),
    ("orphans-intents-first", [
        (WRITER, "        for file in &intents {\n            tracing::info!",
         "        let mut batch = self.manifest.batch();\n        for &file in &intents {\n            batch.remove_intent(file)?;\n        }\n        batch.apply()?;\n        for file in &intents {\n            tracing::info!"),
    ], POWER),
    ("orphans-stay", [(WRITER, "        writer.remove_orphans()?;\n", "")], POWER),
    ("gc-unlinks-before-batch", [
        (GC, "        // Made durable before anything is removed:", "        self.remove_segments(state.oldest)?;\n        // Made durable before anything is removed:"),
    ], POWER),
    ("gc-raises-oldest-last", [
        (GC, "        let mut batch = self.manifest.batch();\n        batch.put_state(&state)?;\n        batch.apply()?;\n        self.state = state;\n", ""),
        (GC, "        self.drop_commits(oldest)?;\n        Ok(Collection",
         "        self.drop_commits(oldest)?;\n        let mut batch = self.manifest.batch();\n        batch.put_state(&state)?;\n        batch.apply()?;\n        self.state = state;\n        Ok(Collection"),
    ], POWER),
    ("tolerate-torn-tail", [(STORE, "DBRecoveryMode::PointInTime", "DBRecoveryMode::TolerateCorruptedTailRecords")],
     f"{SCENES} {POWER}"),
    ("absolute-consistency", [(STORE, "DBRecoveryMode::PointInTime", "DBRecoveryMode::AbsoluteConsistency")], f"{SCENES} {POWER}"),
    ("skip-corrupted-records", [(STORE, "DBRecoveryMode::PointInTime", "DBRecoveryMode::SkipAnyCorruptedRecord")],
     f"{SCENES} index:damaged_log damage"),
    ("no-paranoid-checks", [(STORE, "    options.set_paranoid_checks(true);\n", "    options.set_paranoid_checks(false);\n")],
     f"{SCENES} index:damaged_log damage"),
    ("no-flush-at-close", [(STORE, "        self.flush()?;\n        self.merge_small_tables()", "        self.merge_small_tables()")], SCENES),
    ("tables-never-merged", [(STORE, "            if count > FEW_TABLES && bytes", "            if count == usize::MAX && count > FEW_TABLES && bytes")],
     "torture:short_lived_writers"),
    ("leftovers-stay", [(STORE, "        guard::remove_leftovers(path)?;\n", "")], f"{SCENES} torture:killed_writers"),
    # What is shown, and when.
    ("reader-shows-unacknowledged", [(READABLE, "StateRecord { generation: state.generation.min(acknowledged), ..state }", "{ let _ = acknowledged; state }")],
     f"{SCENES} {POWER}"),
    ("writer-without-holds", [(WRITER, "        manifest.holds(acknowledged)?;\n", "")], SCENES),
    ("reader-without-holds", [(READABLE, "        manifest.holds(before)?;\n", "        let _ = before;\n")], f"{SCENES} index:damaged_log"),
    ("writer-does-not-settle", [(WRITER, "        committed::write(&shared.path, state.generation)?;\n        let writer", "        let writer")],
     f"{SCENES} {POWER}"),
    ("committed-not-checked", [(COMMITTED, "    if acknowledged >= state.oldest && acknowledged.saturating_add(1) >= state.generation {", "    if true {")], SCENES),
    ("reader-keeps-stale-committed", [(READABLE, "self.manifest.is_current() && committed::read(folder).is_ok_and(|now| now == seen)", "{ let _ = (folder, seen); self.manifest.is_current() }")],
     SCENES),
    ("reader-without-comparison", [(STORE, "                (Ok(before), Ok(after)) if is_one_state(&before, &after) => Some(before),", "                (Ok(before), Ok(_)) => Some(before),")],
     "torture:reader"),
    ("expired-not-checked-in-get", [("src/index/snapshot.rs", "        if oldest > *generation {", "        if false && oldest > *generation {")], "browse reliability"),
    ("expired-not-checked-in-ids", [("src/index/ids.rs", "        if oldest > generation {", "        if false && oldest > generation {")], "browse reliability"),
    ("gc-ignores-pins", [(GC, "let pinned = horizon.pinned().unwrap_or(newest);", "let pinned = newest;")], "index reliability torture:reader_thread"),
    ("grace-of-the-wrong-generation", [(GC, "        let is_recent = match made.get(&oldest) {", "        let is_recent = match made.get(&(oldest - 1)) {"),
                                       (GC, "            None => manifest.commit(oldest)?", "            None => manifest.commit(oldest - 1)?")],
     "index reliability lib:grace"),
    ("grace-by-the-clock-only", [(GC, "            Some(made) => made.elapsed() < grace,\n            None =>", "            Some(_) | None =>")], "lib:grace"),
    # Failures.
    ("failed-publish-goes-on", [(WRITER, "        self.poisoned |= published.is_err();\n        published", "        published")], f"bad_input {FAULTS}"),
    ("failed-write-goes-on", [(WRITER, "        self.poisoned |= written.is_err();\n        written", "        written")], f"bad_input {FAULTS}"),
    ("failed-seal-goes-on", [(WRITER, "            Err(error) => {\n                self.poisoned = true;\n                Err(error)", "            Err(error) => {\n                Err(error)")], f"bad_input {FAULTS}"),
    ("failed-gc-goes-on", [(GC, "        self.poisoned |= collected.is_err();\n", "")], f"bad_input {FAULTS}"),
    # Others in the folder, and other processes.
    ("identity-not-checked-by-readers", [(READABLE, "        check_identity(&manifest, folder, identity)?;\n        manifest.holds", "        manifest.holds"),
                                         (READABLE, "    pub fn open(folder: &Path, identity: &Identity)", "    pub fn open(folder: &Path, _: &Identity)")],
     f"{SCENES} bad_input"),
    ("identity-not-checked-by-writers", [(WRITER, "        check_identity(&manifest, &shared.path, &shared.identity)?;\n", ""),
                                         (WRITER, "use super::readable::{View, check_identity};", "use super::readable::View;")], SCENES),
    ("replaced-folder-not-noticed", [(WRITER, "        if self.lock.is_in_place() {\n            return Ok(());\n        }\n        Err(ManifestError::Replaced { path: self.shared.path.clone() })", "        Ok(())")], SCENES),
    ("database-closed-in-a-replaced-folder", [(WRITER, "            self.manifest.abandon();\n", "")], SCENES),
    ("path-stays-relative", [("src/index/mod.rs", "&std::path::absolute(path.as_ref())", "&Ok::<PathBuf, std::io::Error>(path.as_ref().to_owned())")], SCENES),
    ("guard-off", [(STORE, "        guard::check(path)?;\n", ""), (STORE, "guard::check(path).and_then(|()| {", "Ok(()).and_then(|()| {"),
                   (STORE, "use super::guard;", "#[allow(unused_imports)]\nuse super::guard;")], SCENES),
    ("guard-lets-types-pass", [(GUARD, "        if is_recyclable(kind) {\n            return Some((at, kind));\n        }\n", "")], f"{SCENES} lib:record_types"),
    ("links-are-followed", [(FILES, "libc::O_NOFOLLOW | libc::O_NONBLOCK", "libc::O_NONBLOCK")], f"{SCENES} lib:open_regular"),
    ("pipes-are-waited-for", [(FILES, "libc::O_NOFOLLOW | libc::O_NONBLOCK", "libc::O_NOFOLLOW")], f"{SCENES} lib:open_regular"),
    ("giants-are-read", [(FILES, "    if length > longest {\n        return Err(too_long(length));\n    }\n", ""),
                         (FILES, "file.take(longest + 1).read_to_end", "(&file).read_to_end")], "lib:read_small"),
    ("folders-may-be-links", [(FILES, "fs::symlink_metadata(path)?.is_dir()", "fs::metadata(path)?.is_dir()")], SCENES),
    ("unfinished-is-followed", [(FILES, "    let mut file = File::create_new(&unfinished)?;", "    let mut file = File::create(&unfinished)?;"),
                                (FILES, "    match fs::remove_file(&unfinished) {\n        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),\n        _ => {}\n    }\n", "")],
     f"{SCENES} lib:replace_takes"),
    ("forked-lock-released", [(WRITER, "        if !self.is_own() {\n            return;\n        }\n        // Closing the file", "        // Closing the file")], SCENES),
    ("forked-writer-cleans-up", [(WRITER, "        if !self.lock.is_own() {\n            return;\n        }\n", "")], SCENES),
    ("forked-writer-works", [(WRITER, "        if !self.is_own() {\n            Err(CommitError::Forked)\n        } else if", "        if")], SCENES),
    # Growth.
    ("versions-not-listed", [("src/index/pending.rs", "            if history.0.len() > 1 {\n                batch.put_superseded(generation, id)?;\n            }\n", "")], f"{SCENES} index"),
    ("versions-stay", [(GC, "        self.drop_versions(oldest)?;\n", "")], SCENES),
    ("commits-stay", [(GC, "        self.drop_commits(oldest)?;\n", "")], SCENES),
    ("deletes-stay", [(GC, "        self.drop_deletes(oldest)?;\n", "")], SCENES),
    ("current-commit-dropped", [(STORE, "            all.extend((generation < oldest).then_some(generation));", "            all.extend((generation <= oldest).then_some(generation));")], SCENES),
    ("deletes-of-a-later-generation", [(STORE, "records.seek_for_prev(deletes_key(segment, generation));", "records.seek_for_prev(deletes_key(segment, u64::MAX));")], "index torture:reader_thread"),
    ("deletes-of-another-segment", [(STORE, "if self.segment_and_generation(key)?.0 == segment =>", "if self.segment_and_generation(key).is_ok() =>")], "index scan"),
    ("commit-without-limit", [(WRITER, "        if self.pending.examples().saturating_add(examples) > limit {", "        if false && self.pending.examples().saturating_add(examples) > limit {")], SCENES),
    ("large-commit-not-flushed", [(WRITER, "        if bytes >= LARGE_BATCH\n", "        if bytes == usize::MAX\n")], SCENES),
    ("a-descriptor-for-each-file", [("src/segment/storage/file.rs", "        if open.len() >= DESCRIPTORS {", "        if open.len() == usize::MAX {")], "lib:many_open_files scale"),
    ("another-file-of-that-name", [("src/segment/storage/file.rs", "        if identity(&file)? != self.identity {", "        if false && identity(&file)? != self.identity {")], "lib:many_open_files"),
    ("small-reads-through-the-map", [("src/segment/codes.rs", "        if !self.file.bytes.is_on_disk() {", "        if true || !self.file.bytes.is_on_disk() {")], SCENES),
    ("frame-of-another-size", [("src/segment/reader.rs", "        if !is_one || !states {", "        if !is_one {")], "damage"),
    ("string-groups-without-end", [("src/segment/writer.rs", "|| strings > GROUP_STRING_BYTES;", "|| strings > usize::MAX - 1;")], "lib:segment"),
    # Detached segments: each step of a part, of an attach and of a move.
    ("linked-file-not-synced", [(STORAGE, "files::open_regular_with(options.read(true).write(cfg!(windows)), &path)?.sync_all()", "files::open_regular_with(options.read(true).write(cfg!(windows)), &path).map(drop)")], POWER),
    ("copied-file-not-synced", [(ATTACH, "        file.sync().map_err(|error| {", "        Ok(()).map_err(|error| {")], POWER),
    ("attached-names-not-synced", [(ATTACH, "        self.shared.storage.sync().map_err(|source| {", "        Ok(()).map_err(|source| {")], POWER),
    ("attach-without-intent", [(ATTACH, "            batch.put_intent(segment, now_ms())?;\n            all.push", "            all.push")], "attach"),
    ("attach-is-not-undone", [(ATTACH, "                let undone = self.remove_unpublished(&made);", "                let undone = self.remove_unpublished(&made[..0]);")], "attach"),
    ("note-not-synced", [(ATTACHMENT, "    file.sync().map_err(io(\"sync\"))", "    Ok(())")], POWER),
    ("note-stays", [(ATTACHMENT, "    for name in [file_name(segment), note_name(segment)] {", "    for name in [file_name(segment)] {")], "attach"),
    ("recovery-without-notes", [(RECOVER, "            0 => read_note(storage, identity.index, segment)?.unwrap_or(Ok(stated)),\n", "            0 => Ok::<_, String>(stated),\n")], "attach"),
    ("rows-after-attach-in-an-earlier-segment", [(ATTACH, "        self.seal()?;\n", "")], "attach"),
    ("digest-not-compared", [(PART, "    if found.1 != built.1 {", "    if false && found.1 != built.1 {")], "attach"),
    ("counts-not-compared", [(ATTACH, "        if examples != segment.examples || u64::from(reader.rows()) != segment.rows {", "        if false {")], "attach"),
    ("segment-attached-twice", [(ATTACH, "if !known.insert(segment.segment) || self.manifest.has_segment(segment.segment)? {", "if !known.insert(segment.segment) {")], "attach"),
    ("duplicates-attached", [(ATTACH, "                    None => self.find(id)?,", "                    None => None,")], "attach"),
    ("schema-not-compared", [(ATTACH, "            if part.schema_digest != identity.schema_digest {", "            if false && part.schema_digest != identity.schema_digest {")], "attach"),
    ("attach-without-limit", [(ATTACH, "        if examples > limit as u64 {", "        if false && examples > limit as u64 {")], "attach"),
    ("changed-file-committed", [(WRITER, "        if let Some(file) = self.writer.attachments.changed() {", "        if let Some(file) = self.writer.attachments.changed().filter(|_| false) {")], "attach"),
    ("moved-before-the-commit", [
        (WRITER, "        let bytes = batch.byte_len();\n        batch.apply()?;\n",
         "        let bytes = batch.byte_len();\n        for part in &self.attachments.moves {\n            let _ = part.complete();\n        }\n        batch.apply()?;\n"),
    ], POWER),
    ("unfinished-part-attached", [(ATTACH, "    if folder.extension().is_some_and(|end| end == Stage::Unfinished.extension()) {", "    if false {")], "attach"),
    ("part-description-not-synced", [(DETACHED, "            file.write_all(&part.to_bytes())?;\n            file.sync_all()", "            file.write_all(&part.to_bytes())")], POWER),
    ("part-names-not-synced", [(DETACHED, "        files::sync_folder(&unfinished).map_err(io_error(&unfinished, \"sync\"))?;\n", "")], POWER),
    ("finished-part-not-synced", [(DETACHED, "        files::sync_folder(&self.folder).map_err(io_error(&self.folder, \"sync\"))?;\n        self.last", "        self.last")], POWER),
    ("unfinished-part-stays", [(DETACHED, "                Stage::Unfinished => remove_unfinished(&path, true)?,", "                Stage::Unfinished => {}")], "attach"),
    # Artifacts: the steps of a fit, and what they cover.
    ("fit-without-intent", [(ARTIFACTS, "        let intended = intend(&self.manifest, artifact);\n", "        let intended = Ok::<(), ManifestError>(());\n"),
                            (ARTIFACTS, "use super::writer::{Writer, intend};", "use super::writer::Writer;")], POWER),
    ("observation-without-intent", [(OBSERVE, "            intend(&self.manifest, artifact)?;\n", ""),
                                    (OBSERVE, "use super::writer::{Writer, intend};", "use super::writer::Writer;")], POWER),
    ("artifact-not-synced", [(ART_WRITER, "        self.file.sync().map_err(|source| self.failed(\"sync\", source))?;\n", "")], POWER),
    ("artifact-names-not-synced", [(ARTIFACTS, "    storage.sync().map_err(|source| {", "    Ok(()).map_err(|source| {")], POWER),
    ("intent-of-an-artifact-stays", [(WRITER, "            if let Some(file) = record.file {\n                batch.remove_intent(file.artifact())?;\n            }\n", "")], "curvature"),
    ("cancelled-fit-stays", [(FIT, "            Err(error) => return Err(self.give_up(artifact, error)),", "            Err(error) => return Err(error),")], "curvature"),
    ("coverage-not-carried", [(COVERAGE, "                artifact.after.entry(to).or_default().insert(new_row);\n                artifact.moved += 1;", "                artifact.moved += 1;")], "curvature"),
    ("coverage-of-all-that-moves", [(COVERAGE, "            if artifact.before.get(&from).is_some_and(|rows| rows.contains(row)) {", "            if artifact.before.contains_key(&from) {")], "curvature"),
    ("gone-not-counted", [(COVERAGE, "record.gone + (all - moved)", "record.gone")], "curvature"),
    ("self-influence-moves-along", [(COVERAGE, "            if artifact.record.kind == SELF_INFLUENCE {\n                continue;\n            }\n", "")], "curvature second_reader"),
    ("fit-goes-on-with-what-is-gone", [(FIT, "        if record.gone > 0 {", "        if false {")], "curvature"),
    ("missing-rows-not-refused", [(CURVATURE, "        if !is_allowed {", "        if false && !is_allowed {")], "curvature"),
    ("curvature-of-the-newest-generation", [(STORE, "        records.seek_for_prev(artifact_key(name, generation));", "        records.seek_for_prev(artifact_key(name, generation | u64::MAX));")], "curvature"),
    ("chunk-checksum-not-compared", [(ART_READER, "            if layout::chunk_crc(self.artifact, region, number, &buffer) != expected {", "            if false && layout::chunk_crc(self.artifact, region, number, &buffer) != expected {")], "curvature"),
    ("dead-rows-summed", [(FIT, "    rows -= &*segment.dead;\n", "")], "curvature"),
    ("panels-of-all-rows", [(FIT, "            let selected = rows.range(group.first_row + start..group.first_row + end);\n            let selected: Vec<usize> = selected.map(|row| (row - group.first_row) as usize).collect();",
                             "            let selected: Vec<usize> = (start as usize..end as usize).collect();")], "curvature"),
    ("deleted-rows-added", [(FIT, "add(&mut sums, segment, old, Sign::Minus)", "add(&mut sums, segment, old, Sign::Plus)")], "curvature"),
    ("lambda-without-n", [(FACTOR, "        let relative = kappa / rows;", "        let relative = kappa;")], "curvature"),
    ("factors-of-another-kappa", [(CURVATURE, "(cached.artifact, cached.kappa, cached.rank) == (artifact, kappa, rank)", "cached.artifact == artifact")], "curvature"),
    ("self-influence-of-another-kappa", [(CURVATURE, "        let same = |region: &Region| (region.sums, region.kappa, region.rank) == expected;",
                                          "        let same = |region: &Region| (region.sums, region.rank) == (expected.0, expected.2);")], "curvature"),
    ("self-influence-of-other-sums", [(CURVATURE, "        let same = |region: &Region| (region.sums, region.kappa, region.rank) == expected;",
                                       "        let same = |region: &Region| (region.kappa, region.rank) == (expected.1, expected.2);")], "curvature"),
    ("aborted-observations-stay", [(WRITER, "        self.observations = Observations::default();\n        self.artifacts.clear();", "        self.artifacts.clear();")], "curvature"),
    ("artifacts-collected-too-early", [(GC, "    gone.retain(|artifact, _| !kept.contains(artifact));\n", "    let _ = &kept;\n")], "curvature"),
    ("artifacts-never-collected", [(GC, "        let is_followed = all.get(i + 1).is_some_and(|(next, at, _)| next == name && *at <= oldest);", "        let is_followed = false;")], "curvature"),
    ("other-sums-merged", [(ATTACH, "            if !is_like {", "            if false && !is_like {")], "attach"),
    ("attached-sums-lost", [(ATTACH, "                Entry::Occupied(mut entry) => entry.get_mut().merge(sums),", "                Entry::Occupied(_) => {}")], "attach"),
    ("attached-rows-not-covered", [(OBSERVE, "            coverage.append(&mut observed.attached);\n", "")], "attach"),
    ("part-observed-in-part", [(DETACHED, "            if examples > 0 {", "            if false && examples > 0 {")], "attach"),
    # Recovery.
    ("recovery-takes-all-generations", [(RECOVER, "        if recovery.committed.is_some_and(|committed| origin.generation > committed) {", "        if false {")], "recover"),
    ("recovery-takes-damaged-segments", [(RECOVER, "            if !report.findings.is_empty() {", "            if false && !report.findings.is_empty() {")], "recover"),
    ("recovery-overwrites", [(RECOVER, "        Ok(_) => Err(RecoverError::ManifestExists { path: manifest.to_owned() }),", "        Ok(_) => Ok(()),")], "recover"),
]


def edited(name, edits, root):
    """The new texts of the edited files."""
    texts = {}
    for file, old, new in edits:
        text = texts.get(file) or (root / file).read_text()
        found = text.count(old)
        # The path of the index is made absolute in two places.
        if found != 1 and not (name == "path-stays-relative" and found == 2):
            sys.exit(f"mutant {name}: {found} times in {file}, where it must be once:\n{old}")
        texts[file] = text.replace(old, new)
    return texts


def copy(target):
    """Copies what has changed, so that cargo builds no more than that."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    for old in [path for path in target.rglob("*") if path.is_file()]:
        if str(old.relative_to(target)) not in names:
            old.unlink()
    for name in names:
        source, copied = (ROOT / name).read_bytes(), target / name
        if not copied.exists() or copied.read_bytes() != source:
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(source)


def selection(programs):
    """The arguments that build these test programs and no others, and nextest's filter."""
    build, filters = ["--features", "serde"], []
    for program in programs.split():
        name, _, tests = program.partition(":")
        build += ["--lib"] if name == "lib" else ["--test", name]
        one = "kind(lib)" if name == "lib" else f"binary(={name})"
        filters.append(f"({one} & test({tests}))" if tests else one)
    return build, " | ".join(filters)


def tests_pass(target, env, programs):
    """None if it does not compile, else whether all tests have passed; and which have failed."""
    selected, filters = selection(programs)
    # Optimising the engine would take most of the time.
    run = ["cargo", "nextest", "run", "--locked", "--config", "profile.dev.opt-level=0"]
    run += ["--config", 'profile.dev.package."*".opt-level=2', *selected]
    build = subprocess.run([*run, "--no-run"], cwd=target, env=env, capture_output=True, text=True)
    if build.returncode != 0:
        return None, build.stderr[-2000:]
    run += ["--fail-fast", "-E", filters]
    # Most are caught by a few states of the disk already.
    quick = [dict(env, GRADIX_TORTURE_STATES="150", GRADIX_TORTURE_FAULTS="60")] if "torture" in programs else []
    for env in [*quick, env]:
        with subprocess.Popen(run, cwd=target, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True) as process:
            try:
                output, _ = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                return False, f"stopped after {LIMIT} s"
        if process.returncode != 0:
            failed = re.findall(r"(?:FAIL|TIMEOUT|ABORT SIG \d+|SIG\w+) \[[^]]*\] *(?:\([^)]*\))? *(\S+ \S+)", output)
            return False, ", ".join(dict.fromkeys(failed)) or output[-500:]
    return True, ""


def main():
    names = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    unknown = set(names) - {mutant[0] for mutant in MUTANTS}
    if unknown:
        sys.exit(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not names or mutant[0] in names]
    for name, edits, _ in chosen:
        edited(name, edits, ROOT)
    if "--check" in sys.argv:
        return
    if "--list" in sys.argv:
        for name, _, programs in chosen:
            print(f"{name:40} {programs}")
        return
    home = pathlib.Path(os.environ["GRADIX_CACHE"]) / "mutants"
    target = home / "tree"
    env = dict(os.environ, CARGO_TARGET_DIR=str(home / "target"), RUSTFLAGS="-Awarnings")
    copy(target)
    passed, failed = 0, 0
    for name, edits, programs in chosen:
        started = time.monotonic()
        for file, text in edited(name, edits, ROOT).items():
            (target / file).write_text(text)
        survived, what = tests_pass(target, env, programs)
        for file, _, _ in edits:
            (target / file).write_text((ROOT / file).read_text())
        seconds = time.monotonic() - started
        if survived is None:
            outcome, failed = f"DOES NOT COMPILE: {what}", failed + 1
        elif survived:
            outcome, failed = "SURVIVED", failed + 1
        else:
            outcome, passed = f"caught by {what}", passed + 1
        print(f"{name:40} {seconds:4.0f} s  {outcome}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
