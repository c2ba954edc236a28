"""TEMPORARY, untracked."""
import hashlib, math
import numpy as np
from luma_cli.accuracy.prediction import Effect, Prediction, Support
class M:
    scale_note="on the EoMT scale, no LUMA run seen"
    def __init__(self, ev): 
        self.by={}
        for e in ev: self.by.setdefault((e.dataset,e.architecture,e.pretraining),[]).append(e.id)
    def _m(self,s): return 30+8*math.log10((s.params or 1e6)/1e6)+3*math.log2((s.height or 512)/256)+ (4 if s.pretraining in("dinov3","eva02","beit3") else 0)
    def predict(self, ss):
        out=[]
        for s in ss:
            m=self._m(s); ids=tuple(self.by.get((s.dataset,s.architecture,s.pretraining),()))
            out.append(Prediction(m,(m-.5,m+.5),(m-1,m+1),(m-1.3,m+1.3),.8,Support(0,0,len(ids),ids),not ids,"" if ids else "no evidence of it"))
        return out
    def draws(self, ss, num_draws=2000, seed=0):
        mu=np.array([self._m(s) for s in ss]); return mu+np.random.default_rng(seed).normal(0,.8,(num_draws,len(ss)))
    def effects(self,s): return [Effect("pretraining "+s.pretraining,2.1,.4),Effect("size",1.,.2)]
def load_model(evidence=None): return M(evidence or [])
