"""One module a verb: the steps in the order in which one would tell them.

Each takes the settings of its verb, spelled as on the command line, logs what it does, prints nothing, and returns what
it found: a `RunRecord`, or a small result of its own. A notebook that calls one gets the same run as the shell; they
are exported by the package itself:

    from hf_mae import finetune

    record = finetune(model_name_or_path="checkpoint.pth", data_dir="images", output_dir="runs/first")
    print(record.scores["validation"]["macro_f1"])
"""
