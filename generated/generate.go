// Package generated holds no code itself: its folders are what vitgen makes of
// examples/, one package each with its trainer, committed so that they can be
// read, imported and compared. Never edit them; edit the spec or the compiler
// and run go generate.
package generated

//go:generate go run ../cmd/vitgen compile ../examples/vit.yaml -o vit
//go:generate go run ../cmd/vitgen compile ../examples/vit_draft.yaml -o vit_draft
//go:generate go run ../cmd/vitgen compile ../examples/vit_tiny.yaml -o vit_tiny
//go:generate go run ../cmd/vitgen compile ../examples/vit_b16.yaml -o vit_b16
//go:generate go run ../cmd/vitgen compile ../examples/mixer.yaml -o mixer
