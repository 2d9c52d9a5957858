// Searches in the page itself, in place of the theme's script: that asks a worker, which requests the index, and browsers
// refuse both where pages are opened as files. Here lunr and the index are scripts, loaded when somebody begins to type.
document.addEventListener('DOMContentLoaded', () => {
  const box = document.getElementById('properdocs-search-query');
  const list = document.getElementById('properdocs-search-results');
  let search = null;

  box.form.addEventListener('submit', (event) => event.preventDefault());
  box.addEventListener('input', async () => {
    search ??= prepare();
    const find = await search;
    const words = box.value.trim();
    const found = words.length < 3 ? [] : find(words).slice(0, 30).map(entry);
    list.replaceChildren(...(words.length < 3 || found.length ? found : ['Nothing found.']));
  });
});

async function prepare() {
  await Promise.all([load('lunr.js'), load('index.js')]);
  lunr.tokenizer.separator = /[\s\-.,:;=/()[\]]+/;
  const sections = new Map(searchIndex.docs.map((section) => [section.location, section]));
  const index = lunr(function () {
    this.ref('location');
    this.field('title', { boost: 5 });
    this.field('text');
    sections.forEach((section) => this.add(section));
  });
  return (words) => index.query((query) => {
    for (const word of lunr.tokenizer(words)) {
      query.term(word.toString(), { boost: 10 });
      query.term(word.toString(), { wildcard: lunr.Query.wildcard.TRAILING, usePipeline: false });
    }
  }).map((result) => sections.get(result.ref));
}

function load(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = `${base_url}/search/${name}`;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`${script.src} could not be loaded`));
    document.head.append(script);
  });
}

function entry(section) {
  const article = document.createElement('article');
  const link = document.createElement('a');
  const text = document.createElement('p');
  link.href = `${base_url}/${section.location}`;
  link.textContent = section.title;
  text.textContent = `${section.text.slice(0, 200)}…`;
  article.append(link, text);
  return article;
}
