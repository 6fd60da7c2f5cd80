"""Reads the pages in a folder as a reader would, in headless Chromium, and leaves screenshots beside them."""

import contextlib
import itertools
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

FOLDER = pathlib.Path()
WIDTHS = (320, 360, 1280, 1920)
SCHEMES = ("light", "dark")

# WCAG's contrast of a text with what lies behind it, from 1 to 21, smallest of those that match.
CONTRAST = """
const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const luminance = (...colours) => {
  context.clearRect(0, 0, 1, 1);
  for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
  const [red, green, blue] = [...context.getImageData(0, 0, 1, 1).data].map((byte) => byte / 255)
    .map((share) => (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const behind = (element) => {
  const colours = [];
  for (let at = element; at; at = at.parentElement) colours.unshift(getComputedStyle(at).backgroundColor);
  return luminance(...colours);
};
return Math.min(...[...document.querySelectorAll(arguments[0])].map((element) => {
  const [one, other] = [luminance(getComputedStyle(element).color), behind(element)];
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}));
"""


def chromium(profile):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars", f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    return webdriver.Chrome(options, service)


class Reader(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        profile = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, profile, ignore_errors=True)
        cls.browser = chromium(profile)
        cls.addClassCleanup(cls.browser.quit)
        cls.browser.set_script_timeout(20)
        # Leaves the browser's own first page, which loads things.
        cls.browser.get("about:blank")

    def open(self, name, width=1280, scheme="light", height=900):
        for log in ("browser", "performance"):
            self.browser.get_log(log)
        command = self.browser.execute_cdp_cmd
        command("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        self.address = (FOLDER / f"{name}.html").as_uri()
        self.browser.get(self.address)

    def tearDown(self):
        """What no page may do, whatever a test did with it."""
        self.assertEqual([], self.browser.get_log("browser"), "the console has errors")
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        requests = {sent["params"]["request"]["url"] for sent in messages if sent["method"] == "Network.requestWillBeSent"}
        asked = {url.split("#")[0] for url in requests} - {self.address}
        self.assertEqual(set(), asked, "the page asked for something")

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def token(self, text):
        return next(token for token in self.all(".token[role]") if token.text == text)

    def texts(self, selector):
        return [element.text for element in self.all(selector)]

    def press(self, *keys):
        for key in keys:
            webdriver.ActionChains(self.browser).send_keys(key).perform()

    def focused(self):
        return self.browser.switch_to.active_element

    def keep(self, name, is_whole=False):
        """Keeps a screenshot, for eyes."""
        if is_whole:
            height = self.script("return document.documentElement.scrollHeight")
            width = self.script("return innerWidth")
            shot = {"width": width, "height": min(height, 6000), "deviceScaleFactor": 1, "mobile": False}
            self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shot)
        self.browser.save_screenshot(str(FOLDER / f"{name}.png"))

    def assert_fits(self, what):
        """No part of the page is cut off at the right, or makes it scroll sideways."""
        width, room = self.script("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        outside = self.script("""
            const inside = (element) => element.closest(".scroll, .unseen, .skip, svg");
            return [...document.querySelectorAll("body *")].filter((element) => {
              const box = element.getBoundingClientRect();
              return box.width > 0 && !inside(element) && (box.right > innerWidth + 1 || box.left < -1);
            }).slice(0, 5).map((element) => element.outerHTML.slice(0, 200));
        """)
        self.assertEqual([], outside, what)
        self.assertLessEqual(width, room, what)

    def test_every_page_fits_and_can_be_read(self):
        """Catches a page that is wider than its window, or text whose colour is too near to what lies behind it."""
        all_looks = list(itertools.product(WIDTHS, SCHEMES))
        some_looks = [(320, "light"), (1280, "dark")]
        pages = {"thousand": all_looks, "sections": all_looks, "hostile": some_looks, "one": some_looks, "empty": some_looks}
        for name, looks in pages.items():
            for width, scheme in looks:
                with self.subTest(page=name, width=width, scheme=scheme):
                    self.open(name, width, scheme)
                    self.assert_fits(f"{name} at {width}")
                    for selector in (".token[role]", ".muted", ".pill", ".score", "td", "h1", "a"):
                        if self.all(selector):
                            self.assertGreaterEqual(self.script(CONTRAST, selector), 4.5, selector)
                    if width != 320:
                        self.keep(f"{name}-{width}-{scheme}")
                    if width == 1280:
                        self.keep(f"{name}-{width}-{scheme}-whole", is_whole=True)
                    self.tearDown()

    def test_click_on_a_token_shows_what_is_behind_it(self):
        """Catches a token that shows nothing, or the examples of another."""
        self.open("sections")
        article = self.all("article")[1]
        # Nothing was ranked for this output as a whole: its strongest token is shown at first.
        self.assertIn("Behind “Lima”, token 1 of 6", article.text)
        self.token("Japan").click()
        self.assertEqual("Behind “Japan”, token 4 of 6", article.find_element(By.CSS_SELECTOR, ".panel-head h3").text)
        ids = [hit.text for hit in article.find_elements(By.CSS_SELECTOR, ".hit .id")]
        self.assertEqual(["pieces", "a/very/long/id/without/any/blank/0123456789abcdef0123456789abcdef0123456789abcdef", "chinese"], ids)
        scores = [hit.text for hit in article.find_elements(By.CSS_SELECTOR, ".hit .score")]
        self.assertEqual(["+0.750", "+0.700", "−0.400"], scores)
        self.assertIn("利马是秘鲁的首都。", article.text)
        self.assertIn("Lima is a city in Japan.", article.text)
        self.assertEqual("true", self.token("Japan").get_attribute("aria-pressed"))
        self.keep("sections-token")
        # The same again returns to what was shown at first.
        self.token("Japan").click()
        self.assertEqual("false", self.token("Japan").get_attribute("aria-pressed"))
        self.assertIn("Behind “Lima”, token 1 of 6", article.text)
        # A score that is no number is said to be none, and has no colour.
        blank = article.find_elements(By.CSS_SELECTOR, ".token[role]")[-1]
        blank.click()
        self.assertIn("not a number", article.text)
        self.assertNotIn("raises", blank.get_attribute("class"))

    def test_keys_do_what_the_mouse_does(self):
        """Catches a token that Tab, the arrows or Enter do not reach, a focus that is not seen, and an Esc that does nothing."""
        self.open("thousand")
        for _ in range(40):
            self.press(Keys.TAB)
            if "token" in self.focused().get_attribute("class").split():
                break
        first = self.focused()
        self.assertEqual("The", first.text)
        self.assertEqual("solid", first.value_of_css_property("outline-style"))
        self.assertGreaterEqual(float(first.value_of_css_property("outline-width").removesuffix("px")), 2)
        self.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
        self.assertEqual("ship", self.focused().text)
        self.press(Keys.ENTER)
        self.assertEqual("Behind “ship”, token 2 of 43", self.one(".panel-head h3").text)
        self.assertEqual("Behind “ship”, token 2 of 43", self.script("return document.getElementById('status').textContent"))
        self.press(Keys.END)
        self.assertEqual("crew.", self.focused().text)
        self.press(Keys.ARROW_RIGHT, Keys.SPACE)
        self.assertEqual("Behind “crew.”, token 43 of 43", self.one(".panel-head h3").text)
        self.press(Keys.HOME)
        self.assertEqual("The", self.focused().text)
        self.press(Keys.ESCAPE)
        self.assertEqual("Behind the whole output", self.one(".panel-head h3").text)
        # One Tab leaves the tokens.
        self.press(Keys.TAB)
        self.assertNotIn("token", self.focused().get_attribute("class").split())

    def test_thousand_examples_are_read_in_parts(self):
        """Catches a list that shows all at once, hides some for good, or repeats the texts in the file."""
        self.open("thousand")
        self.assertIn("Examples (1,000)", self.texts("h2"))
        column = self.all(".sides section")[0]
        self.assertEqual(10, len(column.find_elements(By.CSS_SELECTOR, ".hit")))
        column.find_element(By.CSS_SELECTOR, ".more").click()
        self.assertEqual(20, len(column.find_elements(By.CSS_SELECTOR, ".hit")))
        self.assertEqual(50, len(self.all(".example")))
        for _ in range(19):
            self.script("arguments[0].click()", self.all(".more")[-1])
        self.assertEqual(1000, len(self.all(".example")))
        self.assertFalse(self.all(".more")[-1].is_displayed())
        text = (FOLDER / "thousand.html").read_text()
        self.assertEqual(1, text.count("Example 17. "))

    def test_search_and_sources_filter(self):
        """Catches a filter that keeps what does not match, loses what does, or cannot be taken back."""
        self.open("thousand")
        search = self.one(".behind input")
        search.send_keys("encyclopedia Example 4")
        kept = self.texts(".behind .hit .id")
        self.assertTrue(kept)
        self.assertTrue(all(each.startswith("encyclopedia/") for each in kept), kept)
        self.assertTrue(all("4" in each for each in self.texts(".behind .hit .text")))
        self.assertIn(" of 1,000", self.one(".find .hint").text)
        search.send_keys(Keys.CONTROL, "a")
        search.send_keys("no such text")
        self.assertEqual(["None of these matches."] * 2, self.texts(".sides .muted"))
        search.send_keys(Keys.ESCAPE)
        self.assertEqual(20, len(self.all(".behind .hit")))
        share = next(share for share in self.all(".share") if "news/2023" in share.text)
        share.click()
        self.assertEqual({"news/2023"}, set(self.texts(".behind .hit .source")))
        self.assertEqual("true", share.get_attribute("aria-pressed"))
        # A token's ranking has the same source: the filter stays.
        self.token("ship").click()
        self.assertEqual({"news/2023"}, set(self.texts(".behind .hit .source")))
        self.one(".find .pill").click()
        self.assertLess(1, len(set(self.texts(".behind .hit .source"))))
        examples = self.all("input")[-1]
        examples.send_keys("Example 998.")
        self.assertEqual(1, len(self.all(".example")))
        self.assertEqual("1 of 1,000", self.all(".find .hint")[-1].text)

    def test_example_and_ranking_lead_to_each_other(self):
        """Catches a link between a ranking and the list of examples that leads nowhere, or to another example."""
        self.open("thousand")
        self.all(".behind .hit .id")[9].click()
        wanted = self.texts(".behind .hit .id")[9]
        self.assertEqual(wanted, self.focused().find_element(By.CSS_SELECTOR, ".id").text)
        place = next(pill for pill in self.focused().find_elements(By.CSS_SELECTOR, ".pill") if "whole" in pill.text)
        self.token("ship").click()
        place.click()
        self.assertEqual("Behind the whole output", self.one(".panel-head h3").text)
        self.assertEqual("Behind the whole output", self.focused().text)

    def test_long_text_unfolds(self):
        """Catches a text whose end cannot be read."""
        self.open("thousand")
        fold = self.one(".behind .fold")
        text = self.script("return arguments[0].previousElementSibling", fold)
        self.assertTrue(text.text.endswith("…"))
        before = len(text.text)
        fold.click()
        self.assertGreater(len(text.text), before)
        self.assertFalse(text.text.endswith("…"))
        self.assertEqual("less", fold.text)

    def test_hostile_text_is_inert(self):
        """Catches text of the data that becomes markup or script, or reorders what stands beside it."""
        self.open("hostile")
        self.one(".token[role]").click()
        for more in self.all(".fold"):
            self.script("arguments[0].click()", more)
        self.assertIsNone(self.script("return window.hurt ?? null"))
        self.assertEqual(0, len(self.all("img, iframe, object, embed, link, body script:not(#data):not(:last-of-type)")))
        shown = self.one(".prompt .text").text
        self.assertIn('</script><!--<script><img src="https://example.invalid/x.png" onerror="window.hurt = 1">', shown)
        self.assertIn("[U+202E]txt.exe␀␇␛[31m", shown)
        self.assertIn("\\xff<\\xfe", self.texts(".hit .id"))
        # An element that gets in all the same runs nothing: the policy forbids it.
        self.script("document.body.insertAdjacentHTML('beforeend', '<b onclick=\"window.hurt = 1\" id=\"bait\">bait</b>')")
        with contextlib.suppress(Exception):
            self.script("document.getElementById('bait').click()")
        self.assertIsNone(self.script("return window.hurt ?? null"))
        refused = self.browser.get_log("browser")
        self.assertTrue(any("Content Security Policy" in entry["message"] for entry in refused), refused)

    def test_theme_switches(self):
        """Catches a switch that does nothing, or a page that ignores the system's choice."""
        back = "return getComputedStyle(document.body).backgroundColor"
        self.open("one", scheme="dark")
        dark = self.script(back)
        self.open("one", scheme="light")
        light = self.script(back)
        self.assertNotEqual(dark, light)
        self.one("#theme").click()
        self.assertEqual(dark, self.script(back))
        self.assertEqual("Light", self.one("#theme").text)
        self.one("#theme").click()
        self.assertEqual(light, self.script(back))

    def test_names_for_a_screen_reader(self):
        """Catches a control without a name, a label that nothing has, and an id twice."""
        for name in ("one", "thousand", "sections"):
            self.open(name)
            nameless = self.script("""
                return [...document.querySelectorAll("button, [role=button], input, a, [role=img], [role=region], article")].filter((element) =>
                  !element.hidden && !(element.getAttribute("aria-label") || element.textContent.trim())).map((element) => element.outerHTML);
            """)
            self.assertEqual([], nameless)
            ids = self.script("return [...document.querySelectorAll('[id]')].map((element) => element.id)")
            self.assertEqual(len(ids), len(set(ids)))
            for controlled in self.script("return [...document.querySelectorAll('[aria-controls]')].map((it) => it.getAttribute('aria-controls'))"):
                self.assertIn(controlled, ids)

    def test_printed_page_fits(self):
        """Catches a print in dark colours, or wider than its paper."""
        self.open("sections", 794, "dark")
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        self.assertEqual("rgb(255, 255, 255)", self.script("return getComputedStyle(document.body).backgroundColor"))
        self.assert_fits("on paper")
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


if __name__ == "__main__":
    FOLDER = pathlib.Path(sys.argv.pop(1))
    unittest.main()
