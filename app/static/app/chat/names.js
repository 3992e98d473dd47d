// Users in pages: their colours, and their mentions in texts.

export const me = document.body.dataset.user;

function hueOf(name) {
  let hash = 0;
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 360;
  return hash;
}

export function colour(element) {
  element.style.setProperty("--hue", hueOf(element.dataset.user));
}

// Fill an element with a text whose mentions are marked.  Only ever text nodes: input of users is never markup.
export function writeText(element, text, mentions = []) {
  element.replaceChildren();
  const names = [...mentions].sort((one, other) => other.length - one.length);
  let rest = text;
  while (names.length) {
    const found = firstMention(rest, names);
    if (!found) break;
    const mark = document.createElement("mark");
    mark.className = "mention";
    mark.dataset.name = found.name;
    mark.textContent = `@${found.name}`;
    element.append(rest.slice(0, found.at), mark);
    rest = rest.slice(found.at + found.name.length + 1);
  }
  element.append(rest);
  markMine(element);
}

function firstMention(text, names) {
  for (const { index } of text.matchAll(/(?<![\w@.+-])@/gu)) {
    const name = names.find((each) => text.startsWith(each, index + 1) && !/^[\p{L}\d_]/u.test(text.slice(index + 1 + each.length)));
    if (name) return { at: index, name };
  }
  return null;
}

export function markMine(element) {
  for (const mark of element.querySelectorAll(".mention")) mark.classList.toggle("me", mark.dataset.name === me);
}
