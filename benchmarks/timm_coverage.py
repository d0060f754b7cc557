"""How many of timm's networks of_model and ledger answer: python benchmarks/timm_coverage.py [--records FOLDER].

The networks are those of timm_names.txt, one for each family's name. Each is built without weights and followed at the
size of image that it is made for. The counts, and by reason the names of what is not answered, go to coverage.json
network by network; called again, it goes on where it stopped.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

import common
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from vgglab import cost, receptive_field

NAMES = Path(__file__).with_name("timm_names.txt").read_text(encoding="utf-8").split()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=common.OWN, help="the folder to write to; default: %(default)s")
    parser.add_argument("--names", nargs="*", default=NAMES, help="some networks only")
    path = (options := parser.parse_args(arguments)).records / "coverage.json"
    versions = {"torch": torch.__version__, "timm": timm.__version__}
    record = common.read(path)
    networks = record["networks"] if record.get("versions") == versions else {}
    for name in options.names:
        if name not in networks:
            networks[name] = looked_at(name)
            print(name, networks[name], flush=True)
            common.write(path, {"versions": versions, **summary(networks), "networks": networks})
    print({key: value for key, value in summary(networks).items() if key != "not answered"})


def summary(networks):
    """The counts, and the names of what of_model does not answer, by reason."""
    reasons = {}
    for name, found in networks.items():
        if found["of_model"] != "whole":
            reasons.setdefault(found["reason"], []).append(name)
    return {
        "of_model": Counter(found["of_model"] for found in networks.values()),
        "ledger": Counter(found["ledger"] for found in networks.values()),
        "not answered": dict(sorted(reasons.items(), key=lambda item: -len(item[1]))),
    }


def looked_at(name):
    """What both answer for one network, and the reason of the first layer that of_model does not know."""
    try:
        model, shape = built(name)
    except Exception as error:
        return {"of_model": "not built", "ledger": "not built", "reason": shortened(error)}
    found = {"of_model": "whole", "ledger": compared(model, shape)}
    try:
        fields = receptive_field.of_model(model, shape)
    except Exception as error:
        return found | {"of_model": "not", "reason": shortened(error)}
    if fields.unknown:
        found |= {"of_model": "partly", "reason": shortened(next(iter(fields.unknown.values())))}
    return found


def built(name):
    """The network without weights, where it can be built so, and the size of its image."""
    try:
        with torch.device("meta"):
            model = timm.create_model(name).eval()
    except (RuntimeError, NotImplementedError):  # it computes with numbers while it is built
        model = timm.create_model(name).eval()
    return model, tuple(model.pretrained_cfg["input_size"])


def compared(model, shape):
    """Whether the ledger's multiply-adds are those that torch's own counter finds."""
    try:
        macs = cost.ledger(model, shape).macs
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.to("meta").requires_grad_(False)(torch.empty(1, *shape, device="meta"))
    except Exception as error:
        return shortened(error)
    theirs = counter.get_total_flops() // 2
    return "equal" if macs == theirs else "higher" if macs > theirs else "lower"


def shortened(error):
    """The first line of an error, without the layers that it names."""
    return re.sub(r" \(in [^)]*\)|(?<=merges) .*(?=:)", "", str(error).split("\n")[0])


if __name__ == "__main__":
    main()
