"""Names of genes are compared as people write them."""

from __future__ import annotations

from iscale.check.counts import check_genes, check_named, species_of

HUMAN = ["TP53", "BRCA1", "GAPDH", "MT-CO1", "C1orf112", "ERBB2", "HLA-A"]
MOUSE = ["Trp53", "Brca1", "Gapdh", "mt-Co1", "Erbb2", "Gm1234", "Rps3"]


def test_species_by_their_names() -> None:
    assert species_of(HUMAN) == "human"
    assert species_of(MOUSE) == "mouse"
    assert species_of(["ENSG00000141510.3"]) == "human"
    assert species_of(["G1", "G2"]) is None


def test_panels_that_share_enough_are_sound() -> None:
    panels = {"A": HUMAN, "B": [*HUMAN[:5], "X1", "X2", "X3", "X4"]}
    assert check_genes(panels) == ([], 5)
    assert check_genes({"A": HUMAN}) == ([], 7)


def test_versions_after_a_dot_are_hinted_at() -> None:
    plain = [f"ENSG{i:011d}" for i in range(20)]
    (finding,), shared = check_genes({"A": plain, "B": [f"{name}.4" for name in plain]})
    assert (finding.code, shared) == ("genes-none-shared", 0)
    assert "without the version" in finding.remedy


def test_named_genes_that_a_capture_lacks() -> None:
    (finding,) = check_named("genes-not-measured", "gene-names.txt", ["TP53", "Erbb2"], {"A": HUMAN, "B": HUMAN[1:]})
    assert "TP53 (not in B)" in finding.message
    assert "similar: ERBB2" in finding.message
    assert check_named("genes-not-measured", "gene-names.txt", ["BRCA1"], {"A": HUMAN, "B": HUMAN[1:]}) == []
