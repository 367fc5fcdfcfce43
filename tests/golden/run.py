#!/usr/bin/env python3
"""Golden tests of `hvm plan`: run.py [--update] HVM [CASE...]

A case is a folder here with
  args          arguments of `hvm plan`, as a shell reads them; # begins a comment, of which the first is the case's title.
                @GOLDEN@ is this folder, @HOSTS@ that of the recorded machines ($HVM_TEST_HOSTS)
  expected.txt  what it prints (lines on standard error begin with "! "), and its exit status
  expected.xml  with --xml: the domain, without the placement in its metadata; missing where the request is refused

Each domain is validated against libvirt's schema, and its pins and stored placement are compared with what --json says. --update writes what comes out
instead of comparing it: look over the difference before it is committed.
"""

import difflib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as tree

GOLDEN = pathlib.Path(__file__).resolve().parent
SCHEMA = pathlib.Path("/usr/share/libvirt/schemas/domain.rng")
HOSTS = os.environ.get("HVM_TEST_HOSTS", "")


class Report:
    """TAP on standard output."""

    def __init__(self):
        self.count = 0
        self.failed = False

    def line(self, good, name, detail="", skip=""):
        self.count += 1
        self.failed |= not good
        print(f"{'ok' if good else 'not ok'} {self.count} - {name}{' # SKIP ' + skip if skip else ''}")
        for text in detail.splitlines():
            print(f"# {text}")
        sys.stdout.flush()


def read_args(folder):
    """The arguments, and the title."""
    text = (folder / "args").read_text()
    title = re.search(r"^#\s*(.*)", text, re.M)
    return shlex.split(text, comments=True), title.group(1) if title else folder.name


def run(hvm, args, *more):
    """Standard output, standard error and status, with the folders' names put back."""
    args = [arg.replace("@GOLDEN@", str(GOLDEN)).replace("@HOSTS@", HOSTS) for arg in args]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HVM_TEMPLATE_PATH": str(GOLDEN / "templates")}
    for key in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
        if key in os.environ:
            environment[key] = os.environ[key]
    result = subprocess.run([hvm, "plan", *args, *more], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            env=environment, timeout=60, check=False)

    def generic(text):
        text = text.replace(str(GOLDEN), "@GOLDEN@")
        return text.replace(HOSTS, "@HOSTS@") if HOSTS else text

    return generic(result.stdout), generic(result.stderr), result.returncode


def compare(report, name, path, found, update):
    """Against a file; found None: there shall be none."""
    if update:
        if found is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(found)
    wanted = path.read_text() if path.exists() else None
    diff = "\n".join(difflib.unified_diff((wanted or "").splitlines(), (found or "").splitlines(), "wanted", "found", lineterm=""))
    report.line(wanted == found, name, diff or ("" if wanted == found else "one of both is missing"))


def validate(report, name, text):
    xmllint = shutil.which("xmllint")
    if not xmllint or not SCHEMA.exists():
        report.line(True, name, skip="no xmllint" if not xmllint else f"no {SCHEMA}")
        return
    result = subprocess.run([xmllint, "--noout", "--relaxng", str(SCHEMA), "-"], input=text, capture_output=True, text=True, check=False)
    report.line(result.returncode == 0, name, "" if result.returncode == 0 else result.stderr)


def without_placement(xml_text):
    """It is JSON, compared apart: each change of a note's wording would show twice."""
    return re.sub(r"(<hvm:placement>).*?(</hvm:placement>)", r"\1...\2", xml_text, flags=re.S)


def cross_check(report, name, xml_text, json_text):
    """The domain pins each vCPU to the PU, and gives each cell the memory, that --json names, and stores that placement."""
    domain = tree.fromstring(xml_text)
    plan = json.loads(json_text)
    plan = plan.get("placement", plan)
    stored = domain.findtext(".//{http://hvm1.io/xmlns/guest}placement")
    found = ({int(pin.get("vcpu")): pin.get("cpuset") for pin in domain.iter("vcpupin")},
             [int(cell.get("memory")) * 1024 for cell in domain.iter("cell") if cell.get("unit") == "KiB"],
             int(domain.findtext("vcpu")), json.loads(stored))
    wanted = ({i: str(vcpu["pu"]) for i, vcpu in enumerate(plan["vcpus"])}, [cell["memory_bytes"] for cell in plan["cells"]],
              len(plan["vcpus"]), plan)
    report.line(found == wanted, name, "" if found == wanted else f"the domain has {found}\n--json has {wanted}")


def run_case(report, hvm, folder, update):
    args, title = read_args(folder)
    name = f"{folder.name}: {title}"
    if any("@HOSTS@" in arg for arg in args) and not os.path.isdir(HOSTS):
        report.line(True, name, skip="no recorded machines: set HVM_TEST_HOSTS to a folder with hwloc XML exports")
        return
    out, err, status = run(hvm, args)
    text = out + "".join(f"! {line}\n" for line in err.splitlines()) + f"exit status {status}\n"
    compare(report, name, folder / "expected.txt", text, update)
    xml_text, _, xml_status = run(hvm, args, "--xml")
    compare(report, f"{folder.name}: domain", folder / "expected.xml", without_placement(xml_text) if xml_status == 0 else None, update)
    if status == 0 and xml_status == 0:
        validate(report, f"{folder.name}: libvirt's schema", xml_text)
        cross_check(report, f"{folder.name}: --json agrees", xml_text, run(hvm, args, "--json")[0])
    elif status != xml_status:
        report.line(False, f"{folder.name}: the same status with --xml", f"{status} without, {xml_status} with it")


def main():
    args = sys.argv[1:]
    update = args[:1] == ["--update"]
    hvm, *wanted = args[1:] if update else args
    report = Report()
    for folder in sorted(path.parent for path in GOLDEN.glob("*/args")):
        if not wanted or folder.name in wanted:
            run_case(report, hvm, folder, update)
    print(f"1..{report.count}")
    return 1 if report.failed else 0


sys.exit(main())
