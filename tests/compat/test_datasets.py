"""Contract tests of `compat.datasets`."""

from datasets import Dataset, Features, Value

from hf_mae.compat.datasets import ArrowWriter, get_fingerprint, has_no_indices_mapping


def test_a_fingerprint_changes_with_the_data():
    one, two = Dataset.from_dict({"a": [1, 2]}), Dataset.from_dict({"a": [1, 3]})
    assert get_fingerprint(one) != get_fingerprint(two) != get_fingerprint(two.select([0]))


def test_selected_and_shuffled_rows_have_an_indices_mapping():
    rows = Dataset.from_dict({"a": [1, 2, 3]})
    assert has_no_indices_mapping(rows) and has_no_indices_mapping(rows.select_columns(["a"]))
    assert not has_no_indices_mapping(rows.select([2, 0])) and not has_no_indices_mapping(rows.shuffle(seed=0))


def test_datasets_reads_the_files_of_the_arrow_writer(tmp_path):
    path = str(tmp_path / "x.arrow")
    with ArrowWriter(features=Features({"b": Value("binary")}), path=path, writer_batch_size=2) as writer:
        writer.write_batch({"b": [b"one", b"two", b"three"]})
        count, _ = writer.finalize()
    assert count == 3 and Dataset.from_file(path)["b"][:] == [b"one", b"two", b"three"]
