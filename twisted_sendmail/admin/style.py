"""How the queue page looks: one style sheet in the page itself, named by its digest in the policy.

Two palettes, one for light and one for dark rooms.  Text has a contrast of at least
4.5 to 1 on everything it stands on, and lines that mean something 3 to 1 (WCAG 2.2
sections 1.4.3 and 1.4.11).  Fonts are those of the machine.
"""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;--ground:#f5f4ef;--sheet:#fffefa;--ink:#1d2421;--quiet:#59625d;--rule:#dddbd1;
--edge:#858b86;--depth:#0a6a5c;--age:#8d4f07;--good:#1c6a34;--bad:#a2271b;--warn:#7a5200;--hold:#464b99;
--link:#0a5f6b;--tint:#efede4;--shade:0 1px 2px #1d24210f,0 4px 16px #1d24210a}
@media (prefers-color-scheme:dark){:root{--ground:#11161a;--sheet:#191f24;--ink:#e7ebe8;--quiet:#a0aba6;
--rule:#2d353b;--edge:#6d7780;--depth:#5cc6b0;--age:#e2b061;--good:#7fcb92;--bad:#f2938a;--warn:#e3b75e;
--hold:#aab0f0;--link:#78c9d6;--tint:#21292f;--shade:none}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);font:1rem/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.skip{position:absolute;left:-99rem}
.skip:focus{left:1rem;top:1rem;background:var(--sheet);padding:.5rem 1rem;z-index:1}
header,main,footer{max-width:78rem;margin:0 auto;padding:0 1.5rem}
header{display:flex;flex-wrap:wrap;gap:.5rem 1.5rem;align-items:center;padding-top:1.25rem;padding-bottom:.5rem}
header p{margin:0}
header .name{font-weight:650;letter-spacing:-.01em;margin-right:auto;overflow-wrap:anywhere}
header .name a{color:inherit;text-decoration:none}
header .name span{color:var(--quiet);font-weight:400;margin-left:.6rem}
footer{color:var(--quiet);font-size:.85rem;padding-top:1rem;padding-bottom:2.5rem}
h1{font-size:clamp(1.5rem,1rem + 2.2vw,2.25rem);line-height:1.2;letter-spacing:-.02em;font-weight:600;margin:1.25rem 0 .4rem;
text-wrap:balance}
h2{font-size:1.05rem;font-weight:650;letter-spacing:-.01em;margin:0 0 .75rem}
h3{font-size:.95rem;font-weight:600;margin:0}
p{margin:0 0 .75rem}
a{color:var(--link);text-underline-offset:.2em}
:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:4px}
.lead{color:var(--quiet);font-size:1.05rem;margin-bottom:1.5rem;max-width:60rem}
.quiet{color:var(--quiet)}
.notice{border-left:4px solid var(--depth);background:var(--sheet);padding:.75rem 1rem;border-radius:0 8px 8px 0;
box-shadow:var(--shade);margin:1rem 0}
.notice.bad{border-color:var(--bad)}
.notice p:last-child{margin:0}
.sheet{background:var(--sheet);border:1px solid var(--rule);border-radius:12px;padding:1.25rem;box-shadow:var(--shade);
margin:0 0 1.25rem;min-width:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));padding:0;overflow:hidden;margin-top:0}
.tiles div{display:flex;flex-direction:column;justify-content:space-between;box-shadow:0 0 0 .5px var(--rule);padding:.9rem 1.25rem}
.tiles dt{color:var(--quiet);font-size:.85rem}
.tiles dd{margin:0;font-size:1.5rem;font-weight:600;letter-spacing:-.02em;font-variant-numeric:tabular-nums;line-height:1.3}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:1.25rem;align-items:start}
.two .sheet{height:100%;margin:0}
.two{margin-bottom:1.25rem}
.top{display:flex;flex-wrap:wrap;gap:.25rem 1rem;justify-content:space-between;align-items:baseline;margin-bottom:.75rem}
.top h2,.top p{margin:0}
.choice{display:flex;gap:.25rem;font-size:.9rem;flex-wrap:wrap}
.choice a{padding:.15rem .7rem;border-radius:99px;text-decoration:none;border:1px solid transparent}
.choice a[aria-current]{border-color:var(--edge);color:var(--ink)}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1.5rem 2.5rem}
figure{margin:0;min-width:0}
figcaption{display:flex;flex-wrap:wrap;gap:0 1rem;justify-content:space-between;align-items:baseline;margin-bottom:.9rem}
.said{margin:0;color:var(--quiet);font-size:.9rem;font-variant-numeric:tabular-nums}
.said b{color:var(--series);font-weight:650}
.depth{--series:var(--depth)}
.age{--series:var(--age)}
.axes{display:grid;grid-template-columns:auto 1fr;gap:0 .6rem;font-size:.8rem;color:var(--quiet);
font-variant-numeric:tabular-nums}
.y{display:flex;flex-direction:column;justify-content:space-between;text-align:right;line-height:0;white-space:nowrap}
.plot{height:10rem}
.plot svg{display:block;width:100%;height:100%;overflow:visible}
.x{grid-column:2;display:flex;justify-content:space-between;margin-top:.6rem;white-space:nowrap}
.x span{width:0;display:flex;justify-content:center}
.x span:first-child{justify-content:flex-start}
.x span:last-child{justify-content:flex-end}
.grid{stroke:var(--rule);stroke-width:1}
.area{fill:var(--series);opacity:.13}
.line{fill:none;stroke:var(--series);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.dot{fill:none;stroke:var(--series);stroke-width:8;stroke-linecap:round}
.strip{fill:var(--series);opacity:0}
.strip:hover{opacity:.16}
details{margin-top:.75rem;font-size:.9rem}
summary{cursor:pointer;color:var(--link);width:max-content;max-width:100%}
.scroll{overflow:auto;max-height:18rem;margin-top:.5rem}
table{border-collapse:collapse;width:100%;font-size:.92rem}
caption{text-align:left;color:var(--quiet);font-size:.85rem;padding-bottom:.4rem}
th{text-align:left;font-weight:600;font-size:.82rem;color:var(--quiet);padding:.4rem .75rem .4rem 0;white-space:nowrap;vertical-align:bottom}
td,tbody th{padding:.6rem .75rem .6rem 0;border-top:1px solid var(--rule);vertical-align:top;overflow-wrap:anywhere}
tbody th{color:var(--ink);font-size:inherit;font-weight:400}
td:last-child,th:last-child{padding-right:0}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.when,.id{white-space:nowrap;font-variant-numeric:tabular-nums}
.id,code,pre{font-family:ui-monospace,"SF Mono","DejaVu Sans Mono",monospace;font-size:.86em}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;line-height:1.6}
.why{min-width:13rem}
.who{min-width:10rem}
time{white-space:nowrap}
.address span{display:inline-block;max-width:100%}
.state{white-space:nowrap;color:var(--quiet)}
.state::before{content:"";display:inline-block;width:.55rem;height:.55rem;border-radius:50%;background:currentColor;margin-right:.4rem}
.good{color:var(--good)}
.state.bad,b.bad{color:var(--bad)}
.warn{color:var(--warn)}
.hold{color:var(--hold)}
.empty{color:var(--quiet);margin:0;padding:.5rem 0}
form{margin:0}
.filters,.actions{display:flex;flex-wrap:wrap;gap:.75rem;align-items:end;margin-bottom:1rem}
.field{display:flex;flex-direction:column;gap:.25rem;font-size:.85rem;color:var(--quiet);min-width:0}
.grow{flex:1 1 11rem}
input,select,button,.button{font:inherit;font-size:.95rem;color:var(--ink);background:var(--sheet);border:1px solid var(--edge);
border-radius:8px;padding:.4rem .7rem;min-height:2.4rem;max-width:100%}
::placeholder{color:var(--quiet);opacity:1}
input[type=text],input[type=password]{width:100%}
input[type=checkbox],input[type=radio]{min-height:0;width:1.15rem;height:1.15rem;accent-color:var(--depth);margin:.15rem 0;flex:none}
button,.button{cursor:pointer;font-weight:550;text-decoration:none;display:inline-flex;align-items:center}
button:hover,.button:hover{background:var(--tint)}
button.first{background:var(--depth);border-color:var(--depth);color:var(--sheet)}
button.first:hover{opacity:.88}
button.danger{color:var(--bad);border-color:currentColor}
button.plain{border-color:transparent;background:none;color:var(--link);padding:0 .3rem}
.actions{background:var(--tint);border-radius:10px;padding:.75rem;align-items:center}
.actions fieldset{border:0;margin:0 auto 0 0;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1rem;min-width:0}
.actions legend{padding:0;font-size:.85rem;color:var(--quiet);float:left;margin-right:1rem}
.actions label{display:flex;gap:.45rem;align-items:center;font-size:.92rem}
.bar{display:flex;flex-wrap:wrap;gap:.5rem}
.pages{display:flex;gap:.75rem;justify-content:space-between;align-items:center;margin-top:1rem;flex-wrap:wrap}
.narrow{max-width:30rem;margin:3rem auto;padding:1.75rem}
.narrow h1{margin-top:0}
.narrow ul{margin-bottom:1.25rem}
.narrow .field{margin-bottom:1rem}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.35rem 1.25rem;margin:0}
.facts dt{color:var(--quiet)}
.facts dd{margin:0;overflow-wrap:anywhere;min-width:0}
ul.plain{list-style:none;margin:0;padding:0}
ul.plain li{padding:.6rem 0;border-top:1px solid var(--rule);overflow-wrap:anywhere}
ul.plain li:first-child{border-top:0;padding-top:0}
ul.plain .top{margin-bottom:.15rem}
ul.plain .quiet{font-size:.92rem}
@media (max-width:70rem){
.cards thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.cards,.cards caption,.cards tbody,.cards tr,.cards td{display:block;width:100%}
.cards tr{border-top:1px solid var(--rule);padding:.75rem 0}
.cards tbody tr:first-child{border-top:0}
.cards td{border:0;padding:.12rem 0;display:grid;grid-template-columns:6.5rem 1fr;gap:.5rem;text-align:left;white-space:normal}
.cards td::before{content:attr(data-label);color:var(--quiet);font:.85rem/1.7 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.cards .why,.cards .who{min-width:0}
}
@media (max-width:46rem){
header,main,footer{padding-left:1rem;padding-right:1rem}
.sheet{padding:1rem}
.tiles{padding:0;grid-template-columns:1fr 1fr}
.tiles div{padding:.7rem 1rem}
.tiles dd{font-size:1.25rem}
.x span:nth-child(even){visibility:hidden}
.facts{grid-template-columns:1fr}
.facts dt:not(:first-child){margin-top:.5rem}
}
@media (prefers-contrast:more){:root{--quiet:var(--ink);--rule:var(--edge)}}
@media print{.filters,.actions,.choice,.skip{display:none}.sheet{box-shadow:none;break-inside:avoid}}
""".strip()

#: What the content security policy calls it (CSP level 3 section 2.3.1).
SOURCE = "'sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode() + "'"
