#!/usr/bin/env python3
"""The lints bite: small trees with one fault each, and the same trees without it."""
import os
import tempfile
import unittest

import layers
import style

HEADERS = {
    "kernels/core/error.h": "", "kernels/kernels.h": "", "kernels/include/quantd/error.h": "", "artifact/gguf.h": "",
    "quant/plan.h": "", "cache/store.h": "", "ipc/packet.h": "", "daemon/job.h": "", "daemon/worker/main.h": "",
    "client/client.h": "", "client/cli/cmd.h": "", "client/include/quantd/quantd.h": "",
}


def findings(check, files, **options):
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                f.write(text)
        return check(root, **options)


class Layers(unittest.TestCase):
    def included(self, path, include):
        return findings(layers.check, {**HEADERS, path: f"#include {include}\n"})

    def test_an_include_goes_upward__is_found(self):
        for path, include in [
            ("kernels/core/io.c", '"kernels/kernels.h"'), ("kernels/cpu.c", '"quant/plan.h"'),
            ("artifact/gguf.c", '"quant/plan.h"'), ("quant/plan.c", '"cache/store.h"'),
            ("cache/store.c", '"daemon/job.h"'), ("ipc/packet.c", '"kernels/kernels.h"'),
            ("client/open.c", '"cache/store.h"'), ("client/open.c", '"client/cli/cmd.h"'),
            ("client/cli/cmd_ls.c", '"ipc/packet.h"'), ("daemon/job.c", '"daemon/worker/main.h"'),
            ("daemon/worker/main.c", '"cache/store.h"'), ("daemon/worker/main.c", '"daemon/job.h"'),
        ]:
            with self.subTest(path=path, include=include):
                self.assertEqual(len(self.included(path, include)), 1)

    def test_an_include_goes_down_or_stays__is_fine(self):
        for path, include in [
            ("quant/plan.c", '"artifact/gguf.h"'), ("cache/store.c", '"quant/plan.h"'),
            ("daemon/job.c", '"ipc/packet.h"'), ("client/cli/cmd_ls.c", "<quantd/quantd.h>"),
            ("daemon/worker/main.c", '"quant/plan.h"'), ("tests/unit/quant/test_plan.c", '"daemon/job.h"'),
            ("kernels/core/io.c", "<quantd/error.h>"), ("quant/plan.c", "<stdio.h>"),
        ]:
            with self.subTest(path=path, include=include):
                self.assertEqual(self.included(path, include), [])

    def test_an_outside_library_in_the_wrong_folder__is_found(self):
        for path, include in [
            ("cache/store.c", "<uv.h>"), ("tests/unit/x.c", "<cmocka.h>"), ("kernels/cpu.c", "<sodium.h>"),
            ("daemon/main.c", "<systemd/sd-daemon.h>"), ("ipc/codec.c", "<jansson.h>"),
        ]:
            with self.subTest(path=path, include=include):
                self.assertEqual(len(self.included(path, include)), 1)
        self.assertEqual(self.included("daemon/main.c", "<uv.h>"), [])

    def test_a_project_header_without_its_folder__is_found(self):
        self.assertEqual(len(self.included("quant/plan.c", '"plan.h"')), 1)


class Style(unittest.TestCase):
    def check(self, path, text):
        return findings(style.check, {path: text}, readmes=())

    def test_faults_of_a_line__are_found(self):
        for path, text in [
            ("quant/a.c", "int x;" + " " * 200 + "int y;\n"), ("quant/a.c", "\tint x;\n"), ("quant/a.c", "int x; \n"),
            ("quant/a.c", "/* TODO: later */\n"), ("quant/a.c", '    printf("x");\n'), ("quant/a.c", "int x;"),
            ("client/open.c", '    fputs("x", stderr);\n'), ("cache/store.c", "    crypto_sign_detached(a, b);\n"),
            ("quant/format/gguf.c", "    size = n_blocks * block_bytes;\n"),
            ("quant/format/gguf.c", "    size = t->n_rows * t->row_bytes;\n"),
        ]:
            with self.subTest(text=text):
                self.assertEqual(len(self.check(path, text)), 1)

    def test_what_is_allowed__passes(self):
        for path, text in [
            ("client/cli/main.c", '    printf("x");\n'), ("daemon/log.c", '    fputs("x", stderr);\n'),
            ("cache/sign.c", "    crypto_sign_detached(a, b);\n"), ("quant/a.c", "/* TODO(12): later */\n"),
            ("quant/a.c", '    snprintf(b, n, "printf(%d)", 1);\n'), ("quant/a.c", "/* printf() is not used */\n"),
        ]:
            with self.subTest(text=text):
                self.assertEqual(self.check(path, text), [])

    def test_a_function_of_71_lines__is_found(self):
        body = "    x++;\n"
        self.assertEqual(self.check("quant/a.c", "void f(void)\n{\n" + body * 70 + "}\n"), [])
        self.assertEqual(len(self.check("quant/a.c", "void f(void)\n{\n" + body * 71 + "}\n")), 1)

    def test_a_long_readme__is_found(self):
        tree = {"quant/a.c": "int x;\n"}
        self.assertEqual(findings(style.check, {**tree, "quant/README.md": "a\n" * 40}), [])
        self.assertEqual(len(findings(style.check, {**tree, "quant/README.md": "a\n" * 41})), 1)


if __name__ == "__main__":
    unittest.main()
