"""Validates an OpenAPI document, given by URL, against the specification that it names."""

import json
import sys
import urllib.request

from openapi_spec_validator import OpenAPIV31SpecValidator

with urllib.request.urlopen(sys.argv[1]) as answer:
    document = json.load(answer)
assert document["openapi"] == "3.1.0", document["openapi"]
OpenAPIV31SpecValidator(document).validate()
print(f"{len(document['paths'])} operations, {len(document['components']['schemas'])} schemas: a valid OpenAPI 3.1 document")
