// Builds and patches the DOM in place: what has not changed is not touched, so that focus,
// selection and scrolling stay where they are.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "rect", "line", "circle", "g", "title"]);

/** A node to be: `props.key` keeps its identity among its siblings. */
export function h(tag, props, ...children) {
  const kept = children.flat(Infinity).filter((c) => c != null && c !== false && c !== "");
  return { tag, props: props ?? {}, children: kept };
}

/** Make the children of `parent` what `children` says. */
export function patch(parent, children) {
  const wanted = [children].flat(Infinity).filter((c) => c != null && c !== false && c !== "");
  const keyed = new Map();
  for (const node of parent.childNodes) if (node.edgeKey != null) keyed.set(node.edgeKey, node);
  let here = parent.firstChild;
  for (const item of wanted) {
    const node = reuse(item, here, keyed) ?? create(item, parent);
    if (node !== here) parent.insertBefore(node, here);
    else here = here.nextSibling;
    update(node, item);
  }
  while (here) {
    const gone = here;
    here = here.nextSibling;
    gone.remove();
  }
}

function reuse(item, here, keyed) {
  if (typeof item !== "object") return here?.nodeType === Node.TEXT_NODE ? here : null;
  const key = item.props.key;
  if (key != null) return keyed.get(key) ?? null;
  const same = here?.localName === item.tag && here.edgeKey == null;
  return same ? here : null;
}

function create(item, parent) {
  if (typeof item !== "object") return document.createTextNode("");
  const svg = SVG_TAGS.has(item.tag) && (item.tag !== "title" || parent.namespaceURI === SVG);
  const node = svg ? document.createElementNS(SVG, item.tag) : document.createElement(item.tag);
  if (item.props.key != null) node.edgeKey = item.props.key;
  return node;
}

function update(node, item) {
  if (typeof item !== "object") {
    if (node.data !== String(item)) node.data = String(item);
    return;
  }
  const before = node.edgeProps ?? {};
  for (const name of Object.keys(before)) if (!(name in item.props)) set(node, name, null);
  for (const [name, value] of Object.entries(item.props)) {
    if (name !== "key" && before[name] !== value) set(node, name, value);
  }
  node.edgeProps = item.props;
  patch(node, item.children);
}

function set(node, name, value) {
  if (name.startsWith("on")) node[name] = value;
  else if (name.startsWith("--")) node.style.setProperty(name, value);
  else if (value == null || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : value);
}
