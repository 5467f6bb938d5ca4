# ruff: noqa: RUF001
"""A little text in many languages, and some code: what the tokenizer of a tiny checkpoint learns from."""

TEXT = """
Query: Passage: Describe the image. user assistant system
A beautiful sunset over the beach. The cash drawer is empty, and the king is not amused. Yes, I do like
your cat. Good morning! Where do we go from here? It was a long day, but everybody came home before dark.
The river rises in the mountains, runs past three old towns and ends in a wide, flat delta full of birds.
She wrote two letters: one to her brother, one to the bank. Neither of them was ever answered by anyone.
How does climate change affect coastal cities? What are the main impacts, and which of them can be reduced?
An overview of methods, results and costs: heat, floods, drought, storms, rising sea level, higher prices.
Search engines compare the meaning of a question with the meaning of documents, not only with their words.
Machine learning models turn text and images into vectors; similar things should have similar vectors.
The quarterly report shows revenue of 1,250 million dollars, up 7 percent from last year. Page 3 of 12.
She said yes at once. Water boils at 100 degrees.
There are 24 hours in a day, 60 minutes in an hour and 365 days in most years.
Please find attached the invoice for the last order. Thank you very much for your help with this problem.
A small red house stands near the lake. People walk their dogs there when the weather is good enough.
Our new neighbours have been learning to play music since they moved in; nobody in this street can sleep.
First open the window, then close the door. If nothing happens, try again or call the number on the back.
He thought about what she had said, and after some time he understood that it could have been different.
Science, history, art, law, medicine, health, energy, travel, food, sport, school, work, world, family.
Un beau coucher de soleil sur la plage. Le petit chat dort toujours sur la chaise de ma grand-mère.
Nous avons besoin de plus de temps pour répondre à cette question. Quelle est la meilleure solution ?
Les enfants jouent dans le jardin pendant que leurs parents préparent le dîner. Il n'y a pas de pain.
Ein wunderschöner Sonnenuntergang am Strand. Die Straße zum Bahnhof ist heute wegen Bauarbeiten gesperrt.
Können Sie mir bitte sagen, wie spät es ist? Ich habe gestern ein neues Buch über die Geschichte gelesen.
Das Wetter wird morgen besser, aber nicht für lange. Wir müssen noch einkaufen und die Kinder abholen.
Un hermoso atardecer en la playa. ¿Dónde está la estación de tren más cercana? El perro corre por la calle.
La ciudad tiene muchos problemas, pero también gente que quiere resolverlos. Mañana será otro día.
Un bellissimo tramonto sulla spiaggia. Vorrei un caffè e un bicchiere d'acqua, per favore. Che ore sono?
Um belo pôr do sol na praia. As crianças não querem ir à escola hoje porque está chovendo muito.
Een prachtige zonsondergang op het strand. Ik weet niet waar mijn fiets is, maar hij staat niet buiten.
Piękny zachód słońca nad plażą. Proszę zamknąć drzwi i okna, bo na dworze jest bardzo zimno.
En vacker solnedgång över stranden. Güzel bir gün batımı sahilde. Hoàng hôn đẹp trên bãi biển.
Красивый закат на пляже. Мы живём в большом городе, но каждое лето ездим к бабушке в деревню.
Сколько стоит этот билет? Я не понимаю, почему он не ответил на моё письмо. Это хороший вопрос.
Гарний захід сонця на пляжі. Ένα όμορφο ηλιοβασίλεμα στην παραλία. שקיעה יפה על החוף.
غروب جميل على الشاطئ. أين تقع المكتبة؟ ذهب الولد إلى المدرسة في الصباح مع أخته الصغيرة.
समुद्र तट पर एक सुंदर सूर्यास्त। आज मौसम बहुत अच्छा है। यह किताब मेरे भाई की है।
সৈকতে সুন্দর সূর্যাস্ত। ชายหาดยามพระอาทิตย์ตกที่สวยงาม
海滩上美丽的日落。今天的天气很好，我们去公园散步吧。这本书是我的朋友写的，我还没有看完。
你知道图书馆在哪里吗？学习一种新的语言需要很多时间。中国的城市发展得很快。
浜辺に沈む美しい夕日。今日はとても暑いので、水をたくさん飲んでください。駅はどこにありますか。
私は毎日本を読みます。この問題の答えを教えてください。猫が好きです。東京は大きな町です。
해변 위의 아름다운 일몰. 오늘은 날씨가 아주 좋습니다. 도서관은 어디에 있습니까? 저는 고양이를 좋아합니다.
def hello_world():
    print('Hello, World!')

class Stack:
    def __init__(self, items=None):
        self.items = list(items or [])

    def push(self, value):
        self.items.append(value)
        return len(self.items)

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()

def find(values, key, default=None):
    for index, value in enumerate(values):
        if value == key:
            return index
    return default

import os, sys, json
with open("data.json", encoding="utf-8") as file:
    data = json.load(file)
function add(first, second) { return first + second; }
const total = items.map((item) => item.price * item.count).filter(Boolean).length;
public static void main(String[] args) { System.out.println("ok"); }
for (int i = 0; i < n; i++) { if (a[i] != b[i]) { return false; } }
SELECT name, count(*) FROM users WHERE age >= 18 GROUP BY name ORDER BY name;
<html><body><p class="title">text</p></body></html> # comment // comment /* comment */ 0x1f 3.14 1e-6
| Name | Value | https://www.example.com/index.html?id=42 user@example.org [1] (see below) - * ** ## ###
"""
