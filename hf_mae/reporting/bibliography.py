"""BibTeX entries of the references that reports cite. Those of metrics and losses are in their registries."""

from collections.abc import Iterable

from ..settings.citations import Citation
from ..settings.losses import LOSSES
from ..settings.metrics import METRICS

_CITATIONS = (
    Citation(
        "he2022mae",
        "inproceedings",
        "He, Kaiming and Chen, Xinlei and Xie, Saining and Li, Yanghao and Doll{\\'a}r, Piotr and Girshick, Ross",
        "Masked autoencoders are scalable vision learners",
        {"booktitle": "CVPR", "year": "2022", "doi": "10.1109/CVPR52688.2022.01553"},
    ),
    Citation(
        "dosovitskiy2021vit",
        "inproceedings",
        "Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and others",
        "An image is worth 16x16 words: transformers for image recognition at scale",
        {"booktitle": "ICLR", "year": "2021"},
    ),
    Citation(
        "wolf2020transformers",
        "inproceedings",
        "Wolf, Thomas and Debut, Lysandre and Sanh, Victor and others",
        "Transformers: state-of-the-art natural language processing",
        {"booktitle": "EMNLP: system demonstrations", "year": "2020", "doi": "10.18653/v1/2020.emnlp-demos.6"},
    ),
    Citation(
        "paszke2019pytorch",
        "inproceedings",
        "Paszke, Adam and Gross, Sam and Massa, Francisco and others",
        "{PyTorch}: an imperative style, high-performance deep learning library",
        {"booktitle": "NeurIPS", "year": "2019"},
    ),
    Citation(
        "loshchilov2019adamw",
        "inproceedings",
        "Loshchilov, Ilya and Hutter, Frank",
        "Decoupled weight decay regularization",
        {"booktitle": "ICLR", "year": "2019"},
    ),
    Citation(
        "goyal2017accurate",
        "article",
        "Goyal, Priya and Doll{\\'a}r, Piotr and Girshick, Ross and others",
        "Accurate, large minibatch {SGD}: training {ImageNet} in 1 hour",
        {"journal": "arXiv:1706.02677", "year": "2017"},
    ),
    Citation(
        "clark2020electra",
        "inproceedings",
        "Clark, Kevin and Luong, Minh-Thang and Le, Quoc V. and Manning, Christopher D.",
        "{ELECTRA}: pre-training text encoders as discriminators rather than generators",
        {"booktitle": "ICLR", "year": "2020"},
    ),
    Citation(
        "huang2016stochastic",
        "inproceedings",
        "Huang, Gao and Sun, Yu and Liu, Zhuang and Sedra, Daniel and Weinberger, Kilian Q.",
        "Deep networks with stochastic depth",
        {"booktitle": "ECCV", "year": "2016", "doi": "10.1007/978-3-319-46493-0_39"},
    ),
    Citation(
        "menon2021logit",
        "inproceedings",
        "Menon, Aditya Krishna and Jayasumana, Sadeep and Rawat, Ankit Singh and Jain, Himanshu and Veit, Andreas and "
        "Kumar, Sanjiv",
        "Long-tail learning via logit adjustment",
        {"booktitle": "ICLR", "year": "2021"},
    ),
    Citation(
        "kang2020decoupling",
        "inproceedings",
        "Kang, Bingyi and Xie, Saining and Rohrbach, Marcus and Yan, Zhicheng and Gordo, Albert and Feng, Jiashi and "
        "Kalantidis, Yannis",
        "Decoupling representation and classifier for long-tailed recognition",
        {"booktitle": "ICLR", "year": "2020"},
    ),
    Citation(
        "islam2021class",
        "article",
        "Islam, Mobarakol and Seenivasan, Lalithkumar and Ren, Hongliang and Glocker, Ben",
        "Class-distribution-aware calibration for long-tailed visual recognition",
        {"journal": "arXiv:2109.05263", "year": "2021"},
    ),
    Citation(
        "efron1981jackknife",
        "article",
        "Efron, Bradley and Stein, Charles",
        "The jackknife estimate of variance",
        {"journal": "Annals of Statistics", "volume": "9", "pages": "586--596", "year": "1981"},
    ),
    Citation(
        "wilson1927probable",
        "article",
        "Wilson, Edwin B.",
        "Probable inference, the law of succession, and statistical inference",
        {
            "journal": "Journal of the American Statistical Association",
            "volume": "22",
            "pages": "209--212",
            "year": "1927",
        },
    ),
    Citation(
        "holm1979simple",
        "article",
        "Holm, Sture",
        "A simple sequentially rejective multiple test procedure",
        {"journal": "Scandinavian Journal of Statistics", "volume": "6", "pages": "65--70", "year": "1979"},
    ),
    Citation(
        "nadeau2003inference",
        "article",
        "Nadeau, Claude and Bengio, Yoshua",
        "Inference for the generalization error",
        {"journal": "Machine Learning", "volume": "52", "pages": "239--281", "year": "2003"},
    ),
    Citation(
        "guo2017calibration",
        "inproceedings",
        "Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.",
        "On calibration of modern neural networks",
        {"booktitle": "ICML", "year": "2017"},
    ),
    Citation(
        "vickers2006decision",
        "article",
        "Vickers, Andrew J. and Elkin, Elena B.",
        "Decision curve analysis: a novel method for evaluating prediction models",
        {"journal": "Medical Decision Making", "volume": "26", "pages": "565--574", "year": "2006"},
    ),
)


def format_bibtex(keys: Iterable[str], dataset_citation: str = "") -> str:
    """Formats the entries of `keys` as BibTeX, without repetitions.

    Args:
        dataset_citation: citation of the dataset, as text; it becomes the entry `data`.
    """
    registered = [metric.citation for metric in METRICS.values()] + [loss.citation for loss in LOSSES.values()]
    entries, parts = {citation.key: citation for citation in (*_CITATIONS, *registered) if citation}, []
    for key in dict.fromkeys(keys):
        citation = entries[key]
        fields = {"author": citation.author, "title": citation.title, **citation.fields}
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        parts.append(f"@{citation.kind}{{{key},\n{body}\n}}")
    if dataset_citation:
        parts.append(f"@misc{{data,\n  note = {{{dataset_citation}}}\n}}")
    return "\n\n".join(parts) + "\n"
