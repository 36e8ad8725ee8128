"""The wheel, in one form whichever release of rules_python assembled it."""

def _canonical_wheel_impl(ctx):
    [assembled] = ctx.files.src
    wheel = ctx.actions.declare_file("{}/{}".format(ctx.label.name, assembled.basename))
    arguments = ctx.actions.args()
    arguments.add("--in", assembled)
    arguments.add("--out", wheel)
    arguments.add("--summary", ctx.attr.summary)
    ctx.actions.run(
        executable = ctx.executable._repack,
        arguments = [arguments],
        inputs = [assembled],
        outputs = [wheel],
        mnemonic = "CanonicalWheel",
        progress_message = "Writing %{output}",
    )
    return [DefaultInfo(
        files = depset([wheel]),
        runfiles = ctx.runfiles([wheel]),
    )]

canonical_wheel = rule(
    implementation = _canonical_wheel_impl,
    doc = """\
Rewrites a wheel of py_wheel: sorted, with fixed times and modes and one form of its metadata.

rules_python's releases differ in these, and some store the time of the build. The file's name is
the one that py_wheel gave it.
""",
    attrs = {
        "src": attr.label(mandatory = True),
        "summary": attr.string(doc = "the distribution's one-line description", mandatory = True),
        "_repack": attr.label(
            cfg = "exec",
            default = "//bazel/wheel:repack",
            executable = True,
        ),
    },
)
