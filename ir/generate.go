package ir

// docs/ops.md, from the op table.
//go:generate env VITGEN_UPDATE=1 go test -count=1 -run ^TestOpsDoc$ .
