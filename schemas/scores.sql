-- Numbers about each image and caption (tables scores_<name>). Null where the row has no image.
-- A CLIP scorer adds one column clip_<model>_<weights> (cosine of image and caption embedding).
CREATE TABLE scores (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    reason VARCHAR,
    caption_characters INTEGER,
    caption_words INTEGER,
    caption_repeated_words DOUBLE,
    caption_top_bigram DOUBLE,
    caption_duplicate_5grams DOUBLE,
    caption_word_length DOUBLE,
    caption_non_words DOUBLE,
    caption_file_name BOOLEAN,
    caption_url BOOLEAN,
    caption_language VARCHAR,
    caption_language_score DOUBLE,
    image_min_side INTEGER,
    image_max_side INTEGER,
    image_aspect DOUBLE,
    image_entropy DOUBLE,
    image_sharpness DOUBLE,
    image_plain DOUBLE,
    phash BIGINT,
    colour_grid BLOB,
    text_area DOUBLE,
    text_count INTEGER,
    text_boxes FLOAT[][],
    face_count INTEGER,
    face_boxes FLOAT[][],
    embedding_file VARCHAR,
    basis VARCHAR
);
COMMENT ON COLUMN scores.part IS '[content] as in rows';
COMMENT ON COLUMN scores.row IS '[content] as in rows';
COMMENT ON COLUMN scores.reason IS '[scores] why a row with an image could not be scored';
COMMENT ON COLUMN scores.caption_characters IS '[scores] Unicode characters after trimming';
COMMENT ON COLUMN scores.caption_words IS '[scores] runs of word characters; each CJK character counts as one';
COMMENT ON COLUMN scores.caption_repeated_words IS '[scores] share of the words that stood in the caption before, capitals ignored';
COMMENT ON COLUMN scores.caption_top_bigram IS '[scores] share of the words'' characters in the most frequent 2-gram, 0 where none stands twice (Gopher: at most 0.20)';
COMMENT ON COLUMN scores.caption_duplicate_5grams IS '[scores] share of the words'' characters in 5-grams that stand more than once (Gopher: at most 0.15)';
COMMENT ON COLUMN scores.caption_word_length IS '[scores] mean characters of a word (Gopher: 3 to 10); null in scripts without spaces';
COMMENT ON COLUMN scores.caption_non_words IS '[scores] share of what stands between spaces that is no word: numbers, signs, codes, addresses, file names, consonants only';
COMMENT ON COLUMN scores.caption_file_name IS '[scores] whether a file''s name or a camera''s number is in it';
COMMENT ON COLUMN scores.caption_url IS '[scores] whether a web or mail address is in it';
COMMENT ON COLUMN scores.caption_language IS '[scores] ISO 639 code of the most likely language; unknown where that is more likely wrong than right; null without letters';
COMMENT ON COLUMN scores.caption_language_score IS '[scores] probability that the guess is right, calibrated by the length of the text';
COMMENT ON COLUMN scores.image_min_side IS '[scores] shorter side of the original in pixels';
COMMENT ON COLUMN scores.image_max_side IS '[scores] longer side of the original in pixels';
COMMENT ON COLUMN scores.image_aspect IS '[scores] longer side over shorter side, at least 1';
COMMENT ON COLUMN scores.image_entropy IS '[scores] Shannon entropy of the grey histogram in bits, 0 for a blank image';
COMMENT ON COLUMN scores.image_sharpness IS '[scores] variance of the Laplacian of the grey picture, 0 for a blank image, low where it is blurred';
COMMENT ON COLUMN scores.image_plain IS '[scores] share of the picture that has its most frequent colour, of 4,096; near 1 for placeholders and blank images';
COMMENT ON COLUMN scores.phash IS '[content] 64-bit DCT perceptual hash, as a signed integer';
COMMENT ON COLUMN scores.colour_grid IS '[content] mean colours of an 8 x 8 grid over the image: 64 cells row by row, red, green, blue, one byte each';
COMMENT ON COLUMN scores.text_area IS '[scores] share of the picture that detected text covers, 0 to 1';
COMMENT ON COLUMN scores.text_count IS '[scores] detected lines or words of text';
COMMENT ON COLUMN scores.text_boxes IS '[scores] left, top, right, bottom of each as fractions of width and height';
COMMENT ON COLUMN scores.face_count IS '[scores] detected faces';
COMMENT ON COLUMN scores.face_boxes IS '[scores] left, top, right, bottom of each as fractions of width and height';
COMMENT ON COLUMN scores.embedding_file IS '[placement] .npy with one float16 row per row of the part, relative to the pool';
COMMENT ON COLUMN scores.basis IS '[lineage] fingerprint of what this part was computed from';
