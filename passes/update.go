package passes

import (
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/spec"
)

// buildUpdate builds the Update program: one optimizer node per parameter, before
// them the global-norm clip and behind each the moving average of its parameter,
// if the spec asks for them.
//
//	%0 = state {name="w", slot="grad", type=f32[8]} : f32[8]
//	%1 = sum_squares %0 : f32[]
//	%2 = clip_scale %1 {norm=0.5} : f32[]
//	%3 = scalar {name="lr"} : f32[]
//	%4 = param {name="w", type=f32[8]} : f32[8]
//	%5 = mul %0, %2 : f32[8]
//	%6 = sgd %4, %5, %3 {weight_decay=0.0} : f32[8]
//	return param.w=%6
//
// The gradients it reads are those of the whole effective batch: Grad adds up
// micro-batches, and inv_n has made their sum a mean.
func buildUpdate(g *ir.Graph, s *spec.Spec) {
	g.Stage = ir.StageTrain // optimizers are no part of a forward graph
	u := &updater{builder: builder{g: g}, opt: s.Train.Optimizer}
	params := s.Params()
	grads := make([]*ir.Value, len(params))
	for i, p := range params {
		u.at(&spec.Base{Name: p.Name, Pos: p.Pos})
		grads[i] = u.state(p, "grad")
	}
	u.at(&spec.Base{Name: "train", Pos: s.Train.Pos})
	if s.Train.ClipNorm > 0 && len(grads) > 0 {
		sumsq := u.add(ir.OpSumSquares, nil, grads...)
		u.clip = u.add(ir.OpClipScale, ir.A("norm", s.Train.ClipNorm), sumsq)
	}
	u.lr = u.add(ir.OpScalar, ir.A("name", "lr"))
	if u.opt.Kind == "adamw" {
		u.corr1 = u.add(ir.OpScalar, ir.A("name", "bias_corr1"))
		u.corr2 = u.add(ir.OpScalar, ir.A("name", "bias_corr2"))
	}
	if s.Train.EMA.Decay > 0 {
		u.share = u.add(ir.OpScalar, ir.A("name", "ema_weight"))
	}
	for i, p := range params {
		u.at(&spec.Base{Name: p.Name, Pos: p.Pos})
		u.param(p, grads[i])
	}
}

// updater holds what the parameters' updates share.
type updater struct {
	builder
	opt              spec.Optimizer
	clip             *ir.Value // nil: no clipping
	lr, corr1, corr2 *ir.Value // corr1, corr2: adamw only
	share            *ir.Value // of the new parameters in their average; nil: none is kept
}

func (u *updater) state(p spec.Param, slot string) *ir.Value {
	return u.add(ir.OpState, ir.A("name", p.Name, "slot", slot, "type", ir.Tensor(ir.F32, p.Shape...)))
}

// param adds one parameter's update and its outputs.
func (u *updater) param(p spec.Param, grad *ir.Value) {
	w := u.add(ir.OpParam, ir.A("name", p.Name, "type", ir.Tensor(ir.F32, p.Shape...)))
	if u.clip != nil {
		grad = u.add(ir.OpMul, nil, grad, u.clip)
	}
	decay := u.opt.WeightDecay
	if !u.opt.DecayAll && !p.Decays() {
		decay = 0
	}
	n := u.step(p, w, grad, decay)
	u.g.Return("param."+p.Name, n.Outs[0])
	for i, name := range []string{"state0.", "state1."} {
		if len(n.Outs) > i+1 {
			u.g.Return(name+p.Name, n.Outs[i+1])
		}
	}
	if u.share != nil {
		u.g.Return("average."+p.Name, u.add(ir.OpEMA, nil, u.state(p, "average"), n.Outs[0], u.share))
	}
}

// step adds the optimizer node. SGD without momentum keeps no state.
func (u *updater) step(p spec.Param, w, grad *ir.Value, decay float64) *ir.Node {
	switch o := u.opt; {
	case o.Kind == "adamw":
		m, v := u.state(p, "state0"), u.state(p, "state1")
		return u.node(ir.OpAdamW, ir.A("weight_decay", decay, "beta1", o.Beta1, "beta2", o.Beta2, "eps", o.Eps),
			w, grad, m, v, u.lr, u.corr1, u.corr2)
	case o.Kind == "sgd" && o.Momentum > 0:
		return u.node(ir.OpSGDMomentum, ir.A("weight_decay", decay, "momentum", o.Momentum, "nesterov", o.Nesterov),
			w, grad, u.state(p, "state0"), u.lr)
	case o.Kind == "sgd":
		return u.node(ir.OpSGD, ir.A("weight_decay", decay), w, grad, u.lr)
	}
	panic("BUG: no update rule for optimizer " + u.opt.Kind)
}
