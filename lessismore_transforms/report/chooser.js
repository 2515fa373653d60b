"use strict";
// Shows what another threshold, fraction or rule keeps. The package has counted that for every choice, by the code of
// `select`; it stands in #choices and is looked up here. Elements with data-live are repainted, and put back as the page
// was written. Without this script the page shows the selection it was made for.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("choices").textContent);
  const scales = new Map(data.scales.map((scale) => [scale.name, scale]));
  const form = byId("chooser"), slider = byId("amount");
  const written = new Map([...document.querySelectorAll("[data-live]")].map((live) => [live, live.innerHTML]));
  const start = byId("selection").textContent;
  const count = (number) => number.toLocaleString("en-US");
  const plural = (number, noun) => (number === 1 ? noun : `${noun}s`);

  // What a choice does to a volume

  for (const volume of data.volumes) {
    volume.halves = volume.hashes.map((hash) => [parseInt(hash.slice(0, 8), 16), parseInt(hash.slice(8), 16)]);
    volume.count = volume.hashes.length;
  }

  function ones(value) {
    let number = 0;
    for (let rest = value >>> 0; rest; rest &= rest - 1) number += 1;
    return number;
  }

  function bits(volume, one, other) {
    const [a, b] = [volume.halves[one], volume.halves[other]];
    return ones(a[0] ^ b[0]) + ones(a[1] ^ b[1]);
  }

  function keptOf(volume, scale, at) {
    const table = volume.kept[scale.name];
    if (scale.nested) return table.map((stays) => stays > at);
    const kept = new Array(volume.count).fill(false);
    for (const index of table[at]) kept[index] = true;
    return kept;
  }

  // Which slice each removed one fell to, -1 for others: by the pair rule its remover, else the first exemplar near it.
  function removersOf(volume, scale, at, kept) {
    if (scale.nested) return volume.by[scale.measure].map((by, index) => (kept[index] ? -1 : by));
    const removers = new Array(volume.count).fill(-1);
    const exemplars = volume.walk.filter((index) => kept[index]), most = scale.rows[at].value;
    for (const index of volume.walk) {
      if (!kept[index]) removers[index] = exemplars.find((exemplar) => bits(volume, exemplar, index) <= most);
    }
    return removers;
  }

  function groupsOf(volume, scale, kept, by) {
    const members = new Map(kept.flatMap((stays, index) => (stays ? [[index, []]] : [])));
    by.forEach((remover, index) => {
      if (remover < 0) return;
      let end = index;
      while (!kept[end] && by[end] >= 0) end = by[end];
      if (members.has(end)) members.get(end).push(index);
    });
    return [...members].map(([index, those]) => ({ kept: index, members: those, ...farthestOf(volume, scale, index, those, by) }));
  }

  // Of the slices that a kept one stands for the one that differs most: from it or, by a similarity, from its remover.
  function farthestOf(volume, scale, kept, members, by) {
    if (!members.length) return {};
    if (scale.measure === "hash") {
      const apart = members.map((index) => bits(volume, index, kept)), most = Math.max(...apart);
      return { farthest: members[apart.indexOf(most)], remover: kept, words: `${most} ${plural(most, "bit")}` };
    }
    const { at, words } = volume.similar[scale.measure];
    const farthest = members.reduce((least, index) => (at[index] < at[least] ? index : least));
    return { farthest, remover: by[farthest], words: words[farthest] };
  }

  // How it is shown

  function tile(volume, index, kind) {
    const style = `background-position:${volume.places[index]}`;
    return `<span class="tile ${kind}" role="img" aria-label="slice ${index}, ${kind}" style="${style}"></span>`;
  }

  function ranges(indices) {
    const runs = [];
    for (const index of indices) {
      if (runs.length && index === runs.at(-1)[1] + 1) runs.at(-1)[1] = index;
      else runs.push([index, index]);
    }
    const texts = runs.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`));
    return (texts.length > 2 ? [...texts.slice(0, 2), "…"] : texts).join(", ");
  }

  function spread(items, most) {
    if (items.length <= most) return items;
    return Array.from({ length: most }, (_, i) => items[Math.round((i * (items.length - 1)) / (most - 1))]);
  }

  function card(volume, group) {
    const kept = tile(volume, group.kept, "kept");
    if (!group.members.length) {
      return `<figure>${kept}<figcaption><b>${group.kept}</b><br>alone</figcaption></figure>`;
    }
    return `<figure class="two">${kept}${tile(volume, group.farthest, "removed")}
<figcaption><b>${group.kept}</b> stands for ${group.members.length}: ${ranges(group.members)}<br>
${group.farthest} → ${group.remover}, ${group.words}</figcaption></figure>`;
  }

  function listed(volume, index, kept, by) {
    let kind = volume.left_out[index], words = `${index} → ${by[index]}`;
    if (kind) words = `${index} ${kind === "bodiless" ? "no body" : kind}`;
    else if (kept[index]) [kind, words] = ["kept", `<b>${index}</b>`];
    else kind = "removed";
    return `<figure>${tile(volume, index, kind)}<figcaption>${words}</figcaption></figure>`;
  }

  function paintVolume(volume, scale, at) {
    const article = document.querySelector(`article.${volume.name}`);
    const kept = keptOf(volume, scale, at), by = removersOf(volume, scale, at, kept);
    const number = kept.filter(Boolean).length;
    const groups = groupsOf(volume, scale, kept, by)
      .filter(({ kept: index, farthest = index }) => volume.places[index] && volume.places[farthest]);
    const shown = spread(groups, data.groups);
    const some = shown.length < number ? `; ${shown.length} of them are shown` : "";
    article.querySelector(".kept_of").textContent = `${count(number)} kept (${volume.shares[scale.name][at]})${some}`;
    const bar = article.querySelector(".bar svg"), ends = bar.getAttribute("aria-label").split(" among ")[1];
    bar.setAttribute("aria-label", `${number} ${plural(number, "kept slice")} marked among ${ends}`);
    bar.innerHTML = kept.map((stays, index) => (stays ? `<rect x="${index}.1" width=".8" height="1"></rect>` : "")).join("");
    article.querySelector(".groups").innerHTML = shown.map((group) => card(volume, group)).join("");
    article.querySelector(".slices").innerHTML = volume.listed.map((index) => listed(volume, index, kept, by)).join("");
  }

  function paintTable(scale, row) {
    document.querySelectorAll("tr[data-extra]").forEach((extra) => extra.remove());
    document.querySelectorAll("tr.chosen").forEach((chosen) => {
      chosen.className = "";
      chosen.firstChild.textContent = chosen.firstChild.textContent.replace(" (chosen)", "");
    });
    if (!scale.table) return;
    const rows = [...byId(scale.table).tBodies[0].rows];
    let line = rows.find((each) => Number(each.dataset.order) === row.order);
    if (!line) {
      const cells = row.cells.map((cell) => `<td>${cell}</td>`).join("");
      const next = rows.find((each) => Number(each.dataset.order) > row.order);
      line = byId(scale.table).tBodies[0].insertRow(next ? next.sectionRowIndex : -1);
      line.dataset.order = row.order;
      line.dataset.extra = "";
      line.innerHTML = `<th scope="row">${row.words}</th>${cells}`;
    }
    line.className = "chosen";
    line.firstChild.textContent = `${row.words} (chosen)`;
  }

  function paintHead(scale, row) {
    byId("kept_count").querySelector("dt").textContent = `${plural(row.kept, "slice")} kept`;
    byId("kept_count").querySelector("dd").textContent = count(row.kept);
    byId("kept_share").querySelector("dd").textContent = row.share;
    byId("selection").textContent = `chosen on this page: ${row.title}`;
    byId("in_words").textContent = row.means;
    if (!byId("legend")) return;
    byId("legend").innerHTML = scale.legend;
    document.querySelectorAll(".examples tr").forEach((line) => [...line.cells].forEach((cell, column) => {
      cell.classList.toggle("within", column < row.tinted);
    }));
    if (byId("tint")) byId("tint").textContent = row.tinted ? " Tinted columns lie within the chosen threshold." : "";
  }

  // The mark on the curves: the drawing without its own mark, and a movable one above it

  const charts = [...document.querySelectorAll(".chart")].map((box) => {
    const picture = box.querySelector("img"), before = picture.src;
    const bytes = Uint8Array.from(atob(before.split(",")[1]), (letter) => letter.charCodeAt(0));
    const drawing = new DOMParser().parseFromString(new TextDecoder().decode(bytes), "image/svg+xml");
    drawing.querySelectorAll(`[id^="${data.cut}_"]`).forEach((part) => part.remove());
    const without = `data:image/svg+xml,${encodeURIComponent(new XMLSerializer().serializeToString(drawing))}`;
    const mark = document.createElement("div");
    mark.className = "mark";
    mark.hidden = true;
    mark.setAttribute("aria-hidden", "true");
    mark.innerHTML = '<i class="line"></i><i class="point"></i><b></b>';
    box.append(mark);
    return { picture, before, without, mark, ...JSON.parse(box.dataset.marks) };
  });

  function paintMark(chart, scale, at, row) {
    const [left, top, right, bottom] = chart.frame, [across, down] = chart.places[scale.name][at];
    const [line, point, label] = chart.mark.children;
    const place = (part, style) => Object.assign(part.style, { left: "", right: "", top: "", width: "", height: "" }, style);
    chart.picture.src = chart.without;
    chart.mark.hidden = false;
    chart.mark.style.color = scale.colour;
    point.hidden = across === null;
    if (across === null) place(line, { left: `${left}%`, width: `${right - left}%`, top: `${down}%`, height: "0" });
    else {
      place(line, { left: `${across}%`, width: "0", top: `${top}%`, height: `${bottom - top}%` });
      place(point, { left: `${across}%`, top: `${down}%` });
    }
    const aside = across === null || across < (left + right) / 2 ? { left: `${across ?? left}%` } : { right: `${100 - across}%` };
    label.textContent = across === null ? row.share : `${row.words}, ${row.share}`;
    place(label, { ...aside, top: `${down}%` });
  }

  // The form

  let chosen = { scale: scales.get(data.own.scale), at: data.own.at };

  function paint() {
    const { scale, at } = chosen, row = scale.rows[at];
    const own = data.own.exact && scale.name === data.own.scale && at === data.own.at;
    document.body.classList.toggle("has-moved", !own);
    slider.setAttribute("aria-valuetext", row.words);
    byId("outcome").textContent = `${row.words}: ${count(row.kept)} of ${count(data.slices)} ${plural(data.slices, "slice")} kept (${row.share})`;
    if (own) return restore();
    byId("command").textContent = `python -m lessismore_transforms select OUT ${row.options} --name ${row.name}`;
    paintHead(scale, row);
    paintTable(scale, row);
    data.volumes.forEach((volume) => paintVolume(volume, scale, at));
    charts.forEach((chart) => paintMark(chart, scale, at, row));
  }

  function restore() {
    for (const [live, before] of written) live.innerHTML = before;
    for (const chart of charts) {
      chart.picture.src = chart.before;
      chart.mark.hidden = true;
    }
  }

  function choose(scale, at) {
    chosen = { scale, at };
    form.elements.rule.value = scale.name;
    slider.max = scale.rows.length - 1;
    slider.value = at;
    paint();
  }

  // The address keeps the choice, `#exemplars=3` for instance, where the browser lets it.
  function remember() {
    const { scale, at } = chosen;
    try {
      history.replaceState(null, "", `#${scale.name}=${scale.rows[at].value}`);
    } catch { /* some browsers refuse it to files */ }
  }

  function recall() {
    const [name, value] = decodeURIComponent(location.hash.slice(1)).split("=");
    const at = value ? (scales.get(name)?.rows ?? []).findIndex((row) => row.value === Number(value)) : -1;
    if (at >= 0) choose(scales.get(name), at);
    return at >= 0;
  }

  function back() {
    choose(scales.get(data.own.scale), data.own.at);
    if (!data.own.exact) {
      document.body.classList.remove("has-moved");
      byId("outcome").textContent = start;
      restore();
    }
  }

  let waiting = false;
  slider.addEventListener("input", () => {
    chosen.at = Number(slider.value);
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      paint();
    });
  });
  slider.addEventListener("change", remember);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelectorAll("[name=rule]").forEach((radio) => radio.addEventListener("change", () => {
    const scale = scales.get(radio.value), before = chosen.scale.rows[chosen.at].kept;
    const gaps = scale.rows.map((row) => Math.abs(row.kept - before));
    choose(scale, gaps.indexOf(Math.min(...gaps)));  // about as many slices by the other rule
    remember();
  }));
  byId("back").addEventListener("click", () => {
    back();
    slider.focus();
    try {
      history.replaceState(null, "", location.pathname);
    } catch { /* as above */ }
  });
  byId("copy").addEventListener("click", async () => {
    const text = byId("command").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // not allowed here: the older way
      getSelection().selectAllChildren(byId("command"));
      document.execCommand("copy");
    }
    byId("copy").textContent = "Copied";
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 1500);
  });
  window.addEventListener("hashchange", recall);
  form.hidden = false;
  if (!recall()) back();
})();
