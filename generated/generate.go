// Package generated holds no code itself: its folders are what vitgen makes of
// examples/, one package each with its trainer, committed so that they can be
// read, imported and compared. Never edit them; edit the spec or the compiler
// and run go generate. It compiles no kernels for CUDA: what is committed must not
// depend on a compiler that may not be there. vitgen build does.
package generated

//go:generate go run ../cmd/vitgen compile ../examples/vit.yaml -o vit --nvcc none
//go:generate go run ../cmd/vitgen compile ../examples/vit_draft.yaml -o vit_draft --nvcc none
//go:generate go run ../cmd/vitgen compile ../examples/vit_tiny.yaml -o vit_tiny --nvcc none
//go:generate go run ../cmd/vitgen compile ../examples/vit_b16.yaml -o vit_b16 --nvcc none
//go:generate go run ../cmd/vitgen compile ../examples/mixer.yaml -o mixer --nvcc none
