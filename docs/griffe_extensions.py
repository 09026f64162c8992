# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the API page needs to read two habits of transformers: `@strict` configurations and lists of options."""

import re

import griffe


class TransformersHabits(griffe.Extension):
    """Rewrites classes as they are found in the source, before their pages are made."""

    def on_class(self, *, cls: griffe.Class, **kwargs: object) -> None:
        """Complete one class."""
        if any(str(decorator.value) == "strict" for decorator in cls.decorators):
            cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*_fields(cls))))
        if cls.name.endswith("Kwargs") and cls.docstring:
            # "name (type, *optional*):" and an indented text become an item of a list
            cls.docstring.value = re.sub(r"^(\w+) \((.+)\):\n +", r"- **\1** (\2): ", cls.docstring.value, flags=re.M)


def _fields(cls: griffe.Class) -> list[griffe.Parameter]:
    """The keyword arguments of the constructor that `@strict` makes of a class's fields at run time."""
    return [
        griffe.Parameter(
            name, annotation=attribute.annotation, kind=griffe.ParameterKind.keyword_only, default=attribute.value
        )
        for name, attribute in cls.attributes.items()
        # fields have both labels, class variables and properties have not
        if attribute.annotation is not None
        and {"class-attribute", "instance-attribute"} <= attribute.labels
        and not name.startswith("_")
    ]
