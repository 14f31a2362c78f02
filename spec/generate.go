package spec

// schema.json and the made parts of docs/SPEC.md, from the language's table.
//go:generate env VITGEN_UPDATE=1 go test -count=1 -run ^(TestSchemaFile|TestDocs)$ .
